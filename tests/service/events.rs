//! `GET /v1/events`: what happens, as it happens, for programs.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::service::setup::{SOON, Service, token};
use crate::support::{Http, Scope, free_port, require};

/// One event.
#[derive(Debug, Clone)]
struct Event {
    id: u64,
    name: String,
    data: Value,
}

struct Stream(BufReader<TcpStream>);

impl Stream {
    /// Opens the stream, and reads its head.
    fn open(port: u16, query: &str, headers: &[(&str, &str)]) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let head = format!("GET /v1/events{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n");
        let headers: String = headers.iter().flat_map(|(name, value)| [*name, ": ", *value, "\r\n"]).collect();
        stream.write_all(format!("{head}{headers}\r\n").as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
        Self(reader)
    }

    /// The id that the stream begins after.
    fn begins_after(&mut self) -> u64 {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
            if let Some(id) = line.strip_prefix("id: ") {
                return id.trim().parse().unwrap();
            }
        }
    }

    /// The next event.
    #[track_caller]
    fn next(&mut self) -> Event {
        let (mut id, mut name) = (None, None);
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
            match line.trim_end().split_once(": ") {
                Some(("id", text)) => id = Some(text.parse().unwrap()),
                Some(("event", text)) => name = Some(text.to_owned()),
                Some(("data", text)) => {
                    let data = serde_json::from_str(text).unwrap();
                    return Event { id: id.unwrap(), name: name.expect("an event has a name"), data };
                }
                _ => {}
            }
        }
    }
}

impl Stream {
    /// Nothing more is told.
    #[track_caller]
    fn ends(mut self) {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).unwrap();
        assert!(!rest.contains("data"), "{rest}");
    }
}

const BOXES: [(&str, &str); 2] = [("staging", "box-1"), ("production", "box-2")];

#[test]
fn a_program_hears_every_turn_and_goes_on_where_it_was() {
    require!("redis-server", "serf");
    let mut service = Service::with_boxes(&Scope::new(), &BOXES, json!({}));
    service.publish("v1");
    let mut stream = Stream::open(service.port, "", &[]);
    assert_eq!(stream.begins_after(), 0);
    let id = service.start_deploy("staging", json!({}));
    let started = stream.next();
    assert_eq!((started.name.as_str(), &started.data["deploy"]["id"]), ("started", &json!(id)));
    assert_eq!(started.data["turn"], "started");
    service.complete("staging", &id, &["box-1"]);
    let (deployed, ended) = (stream.next(), stream.next());
    assert_eq!([deployed.name.as_str(), &ended.name], ["deployed", "ended"]);
    assert!(started.id < deployed.id && deployed.id < ended.id);
    // The service is another one meanwhile.
    service.process().kill();
    service.resume();
    let mut again = Stream::open(service.port, "", &[("Last-Event-ID", &started.id.to_string())]);
    assert_eq!((again.begins_after(), again.next().id, again.next().id), (started.id, deployed.id, ended.id));
    assert_eq!(service.http.post("/v1/freezes", &json!({ "environment": "staging" })).0, 201);
    let frozen = again.next();
    assert_eq!((frozen.name.as_str(), &frozen.data["environment"]), ("frozen", &json!("staging")));
    let mut all = Stream::open(service.port, "?after=0", &[]);
    assert_eq!(all.begins_after(), 0);
    let ids: Vec<u64> = (0..4).map(|_| all.next().id).collect();
    assert_eq!(ids, [started.id, deployed.id, ended.id, frozen.id]);
    assert_eq!(Stream::open(service.port, "", &[]).begins_after(), frozen.id, "from now on");
    let bad = service.http.get("/v1/events?after=yesterday");
    assert_eq!(bad.0, 400, "{}", bad.1);
}

#[test]
fn whoever_was_away_for_long_gets_it_in_pieces() {
    require!("redis-server");
    let service = Service::start(&Scope::new(), json!({}));
    let mut turns = redis::pipe();
    for number in 1..=501 {
        let turn =
            json!({ "id": format!("{number}:x"), "turn": "step", "at": "", "environment": "staging", "text": "" });
        turns.zadd("deployctl:service:turns", format!("{number} {turn}"), number).ignore();
    }
    let _: () = turns.query(&mut service.redis.connection()).unwrap();
    let mut first = Stream::open(service.port, "?after=0", &[]);
    let last = (1..=500).map(|_| first.next().id).last().unwrap();
    assert_eq!(last, 500);
    first.ends();
    let mut second = Stream::open(service.port, "", &[("Last-Event-ID", &last.to_string())]);
    assert_eq!(second.next().id, 501);
    assert_eq!(service.http.post("/v1/freezes", &json!({ "environment": "staging" })).0, 201);
    assert!(second.next().id > 1_000_000_000_000, "and goes on with what is new");
}

#[test]
fn what_another_service_has_written_down_is_told_too() {
    require!("redis-server");
    let service = Service::start(&Scope::new(), json!({}));
    let port = free_port();
    let _second = service.another(port);
    let mut stream = Stream::open(port, "", &[]);
    stream.begins_after();
    for number in 0..5 {
        let freeze = json!({ "environment": "staging", "reason": format!("{number}") });
        assert_eq!(service.http.post("/v1/freezes", &freeze).0, 201);
        assert_eq!(stream.next().data["reason"], freeze["reason"], "each once, in order");
    }
}

#[test]
fn a_program_hears_what_it_may_read_and_asks_for() {
    require!("redis-server");
    let tokens = json!([token("reader", &["read"]), token("staging", &["read:staging"]), token("ops", &["start"])]);
    let service = Service::start(&Scope::new(), json!({ "service": { "tokens": tokens } }));
    let open = |name: &str, query: &str| {
        let mut stream = Stream::open(service.port, query, &[("Authorization", &format!("Bearer {name}"))]);
        stream.begins_after();
        stream
    };
    let [mut reader, mut staging] = ["reader", "staging"].map(|name| open(name, ""));
    let (mut production, mut app) = (open("reader", "?environment=production"), open("reader", "?role=app"));
    let http = |name: &str| service.http.clone().with_token(name);
    let ops = http("ops");
    for freeze in [
        json!({ "environment": "production", "role": "web", "reason": "1" }),
        json!({ "environment": "staging", "role": "app", "reason": "2" }),
        json!({ "environment": "production", "reason": "3" }),
        json!({ "environment": "staging", "reason": "4" }),
    ] {
        assert_eq!(ops.post("/v1/freezes", &freeze).0, 201, "{freeze}");
    }
    let heard = |stream: &mut Stream, count: usize| -> Vec<String> {
        (0..count).map(|_| stream.next().data["reason"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(heard(&mut reader, 4), ["1", "2", "3", "4"]);
    assert_eq!(heard(&mut staging, 2), ["2", "4"]);
    assert_eq!(heard(&mut production, 2), ["1", "3"]);
    assert_eq!(heard(&mut app, 3), ["2", "3", "4"]);
    assert_eq!(http("staging").get("/v1/events?environment=production").0, 403);
    assert_eq!(service.http.get("/v1/events").0, 401);
}

#[test]
fn streams_take_no_thread_and_end_with_the_service() {
    require!("redis-server");
    let mut service = Service::start(&Scope::new(), json!({}));
    let mut streams: Vec<Stream> = (0..200).map(|_| Stream::open(service.port, "", &[])).collect();
    assert_eq!(service.http.get("/healthz").0, 200);
    assert_eq!(service.http.post("/v1/freezes", &json!({ "environment": "staging" })).0, 201);
    for stream in &mut streams {
        assert_eq!(stream.next().name, "frozen");
    }
    let (process, stopped) = (service.process(), Instant::now());
    process.terminate();
    process.wait(SOON);
    assert!(stopped.elapsed() < Duration::from_secs(4), "nobody waits for the streams: {:?}", stopped.elapsed());
    for Stream(mut stream) in streams {
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    assert!(Http::new(&format!("http://127.0.0.1:{}", service.port)).try_get("/healthz").is_err());
}
