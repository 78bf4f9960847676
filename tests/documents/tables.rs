//! The documents' tables of exit codes, of the API and of metrics are complete.

use std::{collections::BTreeSet, process::Command, time::Duration};

use deployctl::exit::Exit;
use serde_json::{Value, json};

use crate::documents::document::{bare, documents, table};
use crate::support::{Http, Redis, Scope, free_port, require};

#[test]
fn exit_codes_are_those_of_the_program() {
    let all = [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::Cancelled,
        Exit::Broken,
        Exit::NoLock,
        Exit::Blocked,
        Exit::Interrupted,
    ];
    // A new one makes this match incomplete, and then belongs into the list above.
    for exit in all {
        match exit {
            Exit::Done
            | Exit::Failed
            | Exit::Usage
            | Exit::Cancelled
            | Exit::Broken
            | Exit::NoLock
            | Exit::Blocked
            | Exit::Interrupted => {}
        }
    }
    let known: BTreeSet<u8> = all.into_iter().map(Exit::code).collect();
    let shown: BTreeSet<u8> = table(&documents(), "code").iter().map(|row| bare(&row[0]).parse().unwrap()).collect();
    assert_eq!(shown, known);
}

fn text((status, body): (u16, Value)) -> (u16, String) {
    (status, body.to_string())
}

/// One service serves both: it takes a while to start.
#[test]
fn every_call_of_the_api_and_every_metric_is_there() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let redis = Redis::start(&scope);
    let listen = format!("127.0.0.1:{}", free_port());
    let config = json!({"redis_url": redis.url(), "service": {"listen": listen}});
    let config = scope.file("service.json", &config.to_string());
    let mut command: Command = scope.command(env!("CARGO_BIN_EXE_deployctl"));
    let mut service = scope.start("service", command.arg("service").arg("--config").arg(config));
    let http = Http::new(&format!("http://{listen}"));
    service.wait_ready(Duration::from_secs(20), || matches!(http.try_get("/healthz"), Ok((200, _))));

    for row in table(&documents(), "call") {
        let (method, path) = bare(&row[0]).split_once(' ').unwrap();
        let path = path.split(['?', '[']).next().unwrap().replace("ID", "app.staging.1").replace("BOX", "box-1");
        // A stream has no end: it is asked for from where there is nothing.
        let path = path.replace("/v1/events", "/v1/events?after=nowhere");
        let (status, body) = match method {
            "GET" => http.try_get(&path).unwrap(),
            "POST" => text(http.post(&path, &json!({}))),
            "DELETE" => text(http.delete(&path)),
            _ => panic!("{method} {path}"),
        };
        assert!(status != 405 && !body.contains("there is no /"), "{method} {path}: {status} {body}");
    }

    let (_, metrics) = http.try_get("/metrics").unwrap();
    let known: BTreeSet<&str> = metrics.split("# HELP ").skip(1).filter_map(|rest| rest.split(' ').next()).collect();
    let rows = table(&documents(), "metric");
    assert_eq!(rows.iter().map(|row| bare(&row[0])).collect::<BTreeSet<_>>(), known);
}
