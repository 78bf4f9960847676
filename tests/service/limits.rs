//! Hostile and clumsy clients, starts and stops.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::json;

use crate::service::setup::{DEPLOYCTL, Service, kind};
use crate::support::{Http, Scope, free_port, require, run, wait_for, wait_until};

/// Sends bytes as they are and gives back all that comes.
fn raw(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn what_is_too_large_or_no_http_is_refused() {
    require!("redis-server");
    let service = Service::start(&Scope::new(), json!({}));
    let head = "POST /v1/releases HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let long = format!("{head}X: {}\r\n\r\n", "a".repeat(17 * 1024));
    let body = format!("{head}Content-Length: 300000\r\n\r\n{}", "a".repeat(300_000));
    let whole = r#"{"role":"app","tag":"v1"}"#;
    let fitting = format!("{head}Content-Length: {}\r\n\r\n{whole}", whole.len());
    for (bytes, status) in [
        ("hello\r\n\r\n", "400"),
        (&format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "411"),
        (&long, "431"),
        (&body, "413"),
        (&fitting, "201"),
    ] {
        let answer = raw(service.port, bytes.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        assert!(answer.contains("Connection: close"), "{answer}");
    }
}

/// Opens connections that never finish a request: every second one sends half a head.
fn idle(port: u16, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|number| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            if number % 2 == 0 {
                stream.write_all(b"GET /healthz HT").unwrap();
            }
            stream
        })
        .collect()
}

#[track_caller]
fn answers_quickly(http: &Http) {
    for _ in 0..20 {
        let started = Instant::now();
        assert_eq!(http.get("/healthz").0, 200);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
}

#[test]
fn ten_thousand_idle_and_slow_connections_keep_nobody_out() {
    require!("redis-server");
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let service = Service::start(&Scope::new(), json!({}));
    let connections = idle(service.port, 10_000);
    answers_quickly(&service.http);
    // In time each of them is let go.
    let mut first = connections.first().unwrap();
    first.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(first.read(&mut [0]).unwrap(), 0, "it is closed");
}

#[test]
fn more_connections_than_there_are_descriptors_keep_nobody_out() {
    require!("redis-server", "prlimit");
    let service = Service::start(&Scope::new(), json!({}));
    let port = free_port();
    let _limited = service.another_by(port, &["prlimit", "--nofile=512:512"]);
    let _connections = idle(port, 900);
    answers_quickly(&Http::new(&format!("http://127.0.0.1:{port}")));
}

#[test]
fn a_connection_is_kept_for_the_next_request() {
    require!("redis-server");
    let service = Service::start(&Scope::new(), json!({}));
    let request = "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let last = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answers = raw(service.port, format!("{request}{request}{last}").as_bytes());
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
    assert_eq!(answers.matches("\"status\"").count(), 1, "HEAD has no body: {answers}");
}

#[test]
fn unknown_paths_methods_and_bodies_are_told_apart() {
    require!("redis-server");
    let service = Service::start(&Scope::new(), json!({}));
    let http = &service.http;
    for path in ["/v1", "/v1/nothing", "/v2/releases", "/nothing"] {
        let (status, body) = http.get(path);
        assert_eq!((status, kind(&body)), (404, "not_found"), "{path}");
    }
    for path in ["/v1/audit", "/v1/releases"] {
        let (status, body) = http.delete(path);
        assert_eq!((status, kind(&body)), (405, "method_not_allowed"), "{path}");
    }
    for (body, says) in [
        (json!({ "role": "app" }), "tag"),
        (json!({ "role": "../x", "tag": "v1" }), "../x"),
        (json!({ "role": "app;rm", "tag": "v1" }), "is not a role"),
        (json!({ "role": "аpp", "tag": "v1" }), "is not a role"),
        (json!({ "role": "app", "tag": "a b" }), "is not a Docker tag"),
        (json!([1]), "the body is not what this call takes"),
    ] {
        let (status, answer) = http.post("/v1/releases", &body);
        assert_eq!((status, kind(&answer)), (400, "bad_request"), "{body}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(says) && !message.contains('\n'), "{message}");
    }
    assert_eq!(http.get("/v1/releases?role=app").1, json!({ "releases": [] }), "nothing was changed");
    assert_eq!(http.get("/v1/releases").0, 400);
    assert_eq!(http.get("/v1/releases?role=app&limit=x").0, 400);
}

#[test]
fn a_service_says_where_it_listens_and_stops_when_told() {
    require!("redis-server");
    let mut service = Service::start(&Scope::new(), json!({}));
    let line = format!("deployctl service listens on http://127.0.0.1:{}", service.port);
    assert!(service.process().log().contains(&line), "{}", service.process().log());
    for signal in [Signal::TERM, Signal::INT] {
        let stopped = Instant::now();
        service.process().signal(signal);
        service.process().wait(Duration::from_secs(10));
        assert!(stopped.elapsed() < Duration::from_secs(3), "{signal:?} took {:?}", stopped.elapsed());
        service.resume();
    }
}

#[test]
fn an_address_in_use_is_one_clear_line() {
    require!("redis-server");
    let service = Service::start(&Scope::new(), json!({}));
    let address = format!("127.0.0.1:{}", service.port);
    let config = service.scope.file("second.json", &json!({ "service": { "listen": address } }).to_string());
    let mut command = service.scope.command(DEPLOYCTL);
    let second = run(command.arg("--config").arg(config).arg("service")).expect(1);
    assert!(second.stderr.contains(&address) && second.stderr.contains("service.listen"), "{second}");
}

#[test]
fn a_redis_that_is_down_is_unavailable_and_comes_back() {
    require!("redis-server");
    let mut service = Service::start(&Scope::new(), json!({}));
    let release = json!({ "role": "app", "tag": "v1" });
    assert_eq!(service.http.post("/v1/releases", &release).0, 201);
    service.redis.kill();
    let (status, body) = service.http.get("/v1/releases?role=app");
    assert_eq!((status, kind(&body)), (503, "unavailable"), "{body}");
    let (status, health) = service.http.get("/healthz");
    assert_eq!((status, health["redis"].as_str()), (200, Some("unreachable")));
    service.redis.resume();
    wait_until(Duration::from_secs(10), "the service has its Redis back", || {
        service.http.get("/healthz").1["redis"] == "ok"
    });
    wait_for(Duration::from_secs(5), "the release is still there", || {
        let (status, body) = service.http.get("/v1/releases?role=app");
        if status == 200 && body["releases"][0]["tag"] == "v1" { Ok(()) } else { Err(body) }
    });
    assert!(service.process().is_running());
}

#[test]
fn a_redis_that_hangs_holds_up_no_question_after_health() {
    require!("redis-server");
    let service = Service::start(&Scope::new(), json!({}));
    assert_eq!(service.http.get("/healthz").1["redis"], "ok");
    service.redis.signal(Signal::STOP);
    let asked = Instant::now();
    let ask = || service.http.get("/healthz");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..100).map(|_| scope.spawn(ask)).collect();
        askers.into_iter().map(|asker| asker.join().unwrap()).collect()
    });
    let took = asked.elapsed();
    service.redis.signal(Signal::CONT);
    assert!(answers.iter().all(|(status, body)| *status == 200 && body["redis"] == "unreachable"), "{answers:?}");
    assert!(took < Duration::from_secs(5), "a hundred answers took {took:?}");
    wait_until(Duration::from_secs(20), "Redis is told of again", || service.http.get("/healthz").1["redis"] == "ok");
}
