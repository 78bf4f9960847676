//! The targets that are told in a language of their own: Slack, GitHub, GitLab, a program.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::service::{
    listener::{Listener, Received},
    setup::{DEPLOYCTL, SOON, Service},
};
use crate::support::{Scope, require, run, wait_for, wait_until};

const BOXES: [(&str, &str); 2] = [("staging", "box-1"), ("staging", "box-2")];
const NAMES: [&str; 2] = ["box-1", "box-2"];

fn service(scope: &Scope, notify: &Value) -> Service {
    let own = json!({ "notify": notify, "public_url": "https://deploys.internal" });
    Service::with_boxes(scope, &BOXES, json!({ "service": own }))
}

#[track_caller]
fn wait_count(listener: &Listener, count: usize) -> Vec<Received> {
    wait_for(SOON, &format!("it gets {count}"), || {
        let received = listener.received();
        if received.len() == count { Ok(received) } else { Err(format!("{received:#?}")) }
    })
}

#[test]
fn slack_is_told_what_where_who_how_far_why_and_where_to_look() {
    require!("redis-server", "serf");
    let (scope, listener) = (Scope::new(), Listener::start());
    let secret = "/services/T000/B000/sEcReT";
    let file = scope.file("slack-url", &format!("{}{secret}\n", listener.url));
    let mut service = service(&scope, &json!([{ "slack": { "url_file": file } }]));
    listener.fail(&[404]);
    service.publish("v1");
    let id = service.start_deploy("staging", json!({ "reason": "a <b> & <!channel>" }));
    service.complete("staging", &id, &NAMES);
    let received = wait_count(&listener, 3);
    assert!(received.iter().all(|one| one.path == secret && one.method == "POST"), "{received:?}");
    let text = |at: usize| received[at].json()["text"].as_str().unwrap().to_owned();
    let link = format!("<https://deploys.internal/deploys/{id}|the page>");
    assert_eq!(
        text(1),
        format!(
            "*app in staging: v1 begins on 2 boxes, 1 at a time*\nby somebody, 0 of 2 boxes\n\
             a &lt;b&gt; &amp; &lt;!channel&gt;\n{link}"
        )
    );
    assert!(
        text(2).starts_with("*app in staging: v1 is deployed on 2 boxes*\n") && text(2).ends_with(&link),
        "{}",
        text(2)
    );
    // The server's answer repeats the path.
    wait_until(SOON, "the refusal is logged", || service.process.as_ref().unwrap().log().contains("answered 404"));
    let log = service.process().log();
    assert!(log.contains("notify:slack") && !log.contains("sEcReT") && !log.contains("B000"), "{log}");
}

/// A GitHub that remembers its deployments.
fn github() -> Listener {
    let deployments: Arc<Mutex<Vec<Value>>> = Arc::default();
    Listener::answering(move |received| {
        let mut all = deployments.lock().unwrap();
        match (received.method.as_str(), received.path.split('?').next().unwrap()) {
            ("GET", "/api/repos/o/n/deployments") => (200, json!(*all).to_string()),
            ("POST", "/api/repos/o/n/deployments") => {
                let mut new = received.json();
                new["id"] = json!(all.len() + 7);
                all.insert(0, new.clone());
                (201, new.to_string())
            }
            ("POST", _) => (201, "{}".to_owned()),
            _ => (404, "{}".to_owned()),
        }
    })
}

#[test]
fn github_knows_a_deployment_and_where_it_stands() {
    require!("redis-server", "serf");
    let (scope, listener) = (Scope::new(), github());
    let file = scope.file("github-token", "ghp_secret");
    let target = json!({ "github": {
        "repository": "o/n", "token_file": file, "api": format!("{}/api/", listener.url),
        "environment_urls": { "staging": "https://staging.internal" },
    }});
    let mut service = service(&scope, &json!([target]));
    let release = json!({ "role": "app", "tag": "v1", "commit": "0123456789abcdef" });
    assert_eq!(service.http.post("/v1/releases", &release).0, 201);
    let id = service.start_deploy("staging", json!({}));
    // Looks for it, makes it, says where it stands.
    let received = wait_count(&listener, 3);
    assert_eq!(received[0].path, "/api/repos/o/n/deployments?environment=staging&per_page=100");
    let made = received[1].json();
    assert_eq!((&made["ref"], &made["environment"]), (&json!("0123456789abcdef"), &json!("staging")));
    assert_eq!((&made["auto_merge"], &made["required_contexts"]), (&json!(false), &json!([])));
    assert_eq!(received[2].path, "/api/repos/o/n/deployments/7/statuses");
    let status = received[2].json();
    assert_eq!(status["state"], "in_progress");
    assert_eq!(status["log_url"], format!("https://deploys.internal/deploys/{id}"));
    assert_eq!(status["environment_url"], "https://staging.internal");
    assert!(received.iter().all(|one| one.headers["authorization"] == "Bearer ghp_secret"), "{received:?}");
    service.process().kill();
    service.resume();
    service.complete("staging", &id, &NAMES);
    let received = wait_count(&listener, 5);
    assert_eq!((received[3].method.as_str(), &received[4].json()["state"]), ("GET", &json!("success")));
    assert_eq!(received[4].path, "/api/repos/o/n/deployments/7/statuses", "the same one, found again");
    assert_eq!(service.http.post("/v1/freezes", &json!({ "environment": "staging" })).0, 201);
    service.publish("v2");
    service.http.delete("/v1/freezes?environment=staging");
    let next = service.start_deploy("staging", json!({}));
    let received = wait_count(&listener, 8);
    assert_eq!((&received[6].json()["ref"], &received[6].json()["payload"]["deployctl"]), (&json!("v2"), &json!(next)));
    assert_eq!(received[7].path, "/api/repos/o/n/deployments/8/statuses");
    assert_eq!(service.http.post(&format!("/v1/deploys/{next}/cancel"), &json!({})).0, 200);
    assert_eq!(wait_count(&listener, 10)[9].json()["state"], "inactive");
}

#[test]
fn gitlab_knows_a_deployment_of_a_commit() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let listener = Listener::answering(|received| match received.method.as_str() {
        "GET" => {
            let running = json!([{ "id": 5, "sha": "abc", "status": "running" }]);
            let none = json!([]);
            // Before the first POST there is none.
            (200, if received.path.contains("environment=staging") { none } else { running }.to_string())
        }
        _ => (201, "{}".to_owned()),
    });
    let file = scope.file("gitlab-token", "glpat-secret");
    let target = json!({ "gitlab": { "repository": "g/s/p", "token_file": file, "api": listener.url } });
    let service = service(&scope, &json!([target]));
    assert_eq!(service.http.post("/v1/releases", &json!({ "role": "app", "tag": "v1", "commit": "abc" })).0, 201);
    let id = service.start_deploy("staging", json!({}));
    service.complete("staging", &id, &NAMES);
    let received = wait_count(&listener, 4);
    assert_eq!(received[1].path, "/projects/g%2Fs%2Fp/deployments");
    assert_eq!(received[1].headers["private-token"], "glpat-secret");
    let made = received[1].json();
    assert_eq!(
        (&made["sha"], &made["status"], &made["environment"]),
        (&json!("abc"), &json!("running"), &json!("staging"))
    );
    assert_eq!(received[3].json()["status"], "success");
}

#[test]
fn a_program_is_told_of_what_it_asks_for_and_run_again_when_it_fails() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let told = scope.dir().join("told");
    let script = format!(
        "echo \"$DEPLOY_TURN $DEPLOY_ENVIRONMENT $DEPLOY_ROLE $DEPLOY_TAG $DEPLOY_ID $(cat)\" >>{told}\n\
         test $(wc -l <{told}) -ne 1",
        told = told.display()
    );
    let program = scope.script("notify", &script);
    let service = service(&scope, &json!([{ "command": [program], "on": ["started", "deployed", "frozen"] }]));
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    service.complete("staging", &id, &NAMES);
    let lines = |count: usize| {
        wait_for(SOON, &format!("{count} lines"), || {
            let text = std::fs::read_to_string(&told).unwrap_or_default();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if lines.len() == count { Ok(lines) } else { Err(text) }
        })
    };
    let heard = lines(3);
    let deploy = |line: &str| -> Value { serde_json::from_str(&line[line.find('{').unwrap()..]).unwrap() };
    for (line, (turn, state)) in
        heard.iter().zip([("started", "rolling"), ("started", "rolling"), ("deployed", "deployed")])
    {
        assert!(line.starts_with(&format!("{turn} staging app v1 {id} {{")), "{line}");
        assert_eq!(deploy(line)["state"], state);
    }
    assert_eq!(deploy(&heard[2])["boxes"].as_array().unwrap().len(), 2, "with its boxes");
    assert_eq!(service.http.post("/v1/freezes", &json!({ "environment": "staging", "reason": "sales" })).0, 201);
    let frozen = lines(4).pop().unwrap();
    assert!(frozen.starts_with("frozen staging    {"), "{frozen}");
    assert_eq!(deploy(&frozen)["reason"], "sales");
}

#[test]
fn one_program_as_a_list_of_words_is_told_of_each_end_once_whatever_it_says() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let told = scope.dir().join("told");
    let program = scope.script("notify", &format!("echo \"$1 $DEPLOY_KIND $(cat)\" >>{}; exit 1", told.display()));
    let mut service = service(&scope, &json!([program, "--loud"]));
    service.publish("v1");
    let id = service.start_deploy("staging", json!({}));
    service.complete("staging", &id, &NAMES);
    service.publish("v2");
    let next = service.start_deploy("staging", json!({}));
    assert_eq!(service.http.post(&format!("/v1/deploys/{next}/cancel"), &json!({})).0, 200);
    let text = wait_for(SOON, "both ends are told", || {
        let text = std::fs::read_to_string(&told).unwrap_or_default();
        if text.lines().count() == 2 { Ok(text) } else { Err(text) }
    });
    for (line, (id, state)) in text.lines().zip([(&id, "deployed"), (&next, "cancelled")]) {
        let deploy: Value = serde_json::from_str(line.strip_prefix("--loud deploy ").unwrap()).unwrap();
        assert_eq!((&deploy["id"], &deploy["state"]), (&json!(id), &json!(state)));
        assert_eq!(deploy["boxes"].as_array().unwrap().len(), 2);
    }
    let says = format!("nobody may know that {id} ended deployed");
    wait_until(SOON, "it is logged", || service.process.as_ref().unwrap().log().contains(&says));
    wait_until(SOON, "nothing waits", || service.redis.hash("deployctl:service:outbox:command").is_empty());
    let log = service.process().log();
    assert!(log.contains("see service.notify"), "{log}");
    assert_eq!(std::fs::read_to_string(&told).unwrap().lines().count(), 2, "not run again");
}

#[test]
fn doctor_names_a_target_whose_file_is_missing_or_holds_something_else() {
    require!("redis-server");
    let scope = Scope::new();
    let service = Service::start(&scope, json!({}));
    let secret = |name: &str, text: &str| {
        let file = scope.file(name, text);
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        file
    };
    let notify = json!([
        { "name": "night", "slack": { "url_file": scope.dir().join("nowhere") } },
        { "slack": { "url_file": secret("not-a-url", "hunter2") } },
        { "github": { "repository": "o/n", "token_file": secret("token", "ghp_x") } },
    ]);
    let config = json!({ "redis_url": service.redis.url(), "service": { "notify": notify } });
    let file = scope.file("doctor.json", &config.to_string());
    let said = run(scope.command(DEPLOYCTL).arg("--config").arg(file).arg("doctor"));
    assert_eq!(said.code, Some(1), "{said:?}");
    for line in [
        "✗ notify night: url_file: cannot read",
        "✗ notify slack: url_file:",
        "✓ notify github: by github",
        "✗ notify night, url_file: cannot look at",
    ] {
        assert!(said.stdout.contains(line), "{line}: {}", said.stdout);
    }
    assert!(!said.stdout.contains("hunter2"), "{}", said.stdout);
}
