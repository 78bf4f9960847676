//! The stream that says that something has changed.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::json;

use super::browser::Browser;
use crate::service::setup::{SOON, Service, token};
use crate::support::{Scope, require, wait_for};

/// Opens the stream, and gives it after its head.
fn watch(port: u16, cookie: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let head = format!("GET /events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 2 {
        if line.starts_with("HTTP") {
            assert!(line.contains("200"), "{line}");
        }
        line.clear();
    }
    reader
}

/// The next number that the stream tells.
fn next(stream: &mut BufReader<TcpStream>) -> u64 {
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream has ended");
        if let Some(number) = line.strip_prefix("data: ") {
            return number.trim().parse().unwrap();
        }
    }
}

fn number(page: &super::browser::Page) -> u64 {
    page.text.split_once("data-number=\"").unwrap().1.split('"').next().unwrap().parse().unwrap()
}

#[test]
fn whoever_watches_is_told_that_something_changed_and_nothing_else() {
    require!("redis-server");
    let service = Service::start(&Scope::new(), json!({}));
    let mut browser = Browser::new(&service);
    let before = number(&browser.get("/"));
    let mut stream = watch(service.port, "");
    let first = next(&mut stream);
    assert!(first >= before, "{first} {before}");
    assert_eq!(service.http.post("/v1/freezes", &json!({ "environment": "staging", "reason": "secret plans" })).0, 201);
    let told = next(&mut stream);
    assert!(told > first, "{told} {first}");
    wait_for(SOON, "the page is as new as the stream says", || {
        let page = browser.get("/");
        if number(&page) >= told && page.text.contains("secret plans") { Ok(()) } else { Err(page.text) }
    });
    browser.headers = vec![("Sec-Fetch-Site", "cross-site".to_owned())];
    assert_eq!(browser.get("/events").status, 403, "another site's page watches nothing");
}

#[test]
fn a_stream_wants_a_session() {
    require!("redis-server");
    let config = json!({ "service": { "tokens": [token("reader", &["read"])] } });
    let service = Service::start(&Scope::new(), config);
    assert_eq!(Browser::new(&service).get("/events").status, 303);
    let browser = Browser::signed_in(&service, "reader");
    let (name, id) = browser.cookies.iter().next().unwrap();
    next(&mut watch(service.port, &format!("{name}={id}")));
}

#[test]
fn many_who_watch_hold_nobody_up_and_end_with_the_service() {
    require!("redis-server");
    let mut service = Service::start(&Scope::new(), json!({}));
    // More than there are threads for requests.
    let mut streams: Vec<_> = (0..200).map(|_| watch(service.port, "")).collect();
    for stream in &mut streams {
        next(stream);
    }
    assert_eq!(service.http.get("/healthz").0, 200);
    assert_eq!(service.http.post("/v1/freezes", &json!({ "environment": "staging" })).0, 201);
    for stream in &mut streams {
        next(stream);
    }
    let (process, stopped) = (service.process(), Instant::now());
    process.terminate();
    process.wait(SOON);
    assert!(stopped.elapsed() < Duration::from_secs(4), "nobody waits for the streams: {:?}", stopped.elapsed());
    for mut stream in streams {
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
}
