//! From nothing to a configuration and a token, as somebody meets the program for the first time.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::support::{Http, Redis, Scope, free_port, require, run};

const DEPLOYCTL: &str = env!("CARGO_BIN_EXE_deployctl");

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

fn deployctl(scope: &Scope, line: &str) -> crate::support::Output {
    run(scope.command(DEPLOYCTL).args(line.split_whitespace()).current_dir(scope.dir()))
}

#[test]
fn a_token_comes_with_its_line_for_the_service() {
    let scope = Scope::new();
    let output = deployctl(&scope, "token new --name ci --can publish,start:staging").ok();
    let [token, line] = output.stdout.lines().collect::<Vec<_>>()[..] else { panic!("two lines: {output}") };
    assert_eq!(token.len(), 64);
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["name"], &line["can"]), (&json!("ci"), &json!(["publish", "start:staging"])));
    let kept = deployctl(&scope, "token new --name ci --can read --file token").ok();
    let file = scope.dir().join("token");
    assert_eq!(mode(&file), 0o600);
    assert!(!kept.stdout.contains(&fs::read_to_string(&file).unwrap()), "{kept}");
    let again = deployctl(&scope, "token new --name ci --can read --file token").expect(2);
    assert!(again.stderr.starts_with("deployctl: cannot make token: nothing is overwritten"), "{again}");
    deployctl(&scope, "token new --name ci --can admin").expect(2).one_line(&["admin", "not a scope"]);
}

#[test]
fn a_box_is_configured_by_flags_once() {
    let scope = Scope::new();
    let line = "init box --config box.json -r app,web --service-url http://deploys:8700 --no-load-balancer \
                --health-url app=http://127.0.0.1:8080/health";
    deployctl(&scope, line).ok();
    deployctl(&scope, "check-config --config box.json").ok();
    let text = fs::read_to_string(scope.dir().join("box.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["roles"]["app"]["health"]["url"], "http://127.0.0.1:8080/health");
    assert_eq!(config["roles"]["web"], json!({"load_balancers": []}));
    let again = deployctl(&scope, line).expect(2);
    assert!(again.stderr.contains("box.json is there already"), "{again}");
    assert_eq!(fs::read_to_string(scope.dir().join("box.json")).unwrap(), text);
    let missing = deployctl(&scope, "init box --config other.json -r app --service-url http://x").expect(2);
    assert!(missing.stderr.contains("--no-load-balancer"), "{missing}");
    assert!(!scope.dir().join("other.json").exists());
}

#[test]
fn a_service_runs_with_what_init_wrote_and_a_laptop_learns_what_its_token_may_do() {
    require!("redis-server", "serf");
    let scope = Scope::new();
    let redis = Redis::start(&scope);
    let listen = format!("127.0.0.1:{}", free_port());
    let line = format!("init service --config service.json -r app -e staging,production --listen {listen}");
    let output = deployctl(&scope, &line).ok();
    for name in ["ci", "staging-boxes", "production-boxes", "ops"] {
        assert_eq!(mode(&scope.dir().join(format!("token-{name}"))), 0o600, "{output}");
    }
    deployctl(&scope, &line).expect(2);
    scope.file("redis-url", &redis.url());
    let mut command = scope.command(DEPLOYCTL);
    let mut service = scope.start("service", command.args(["service", "--config", "service.json"]));
    let http = Http::new(&format!("http://{listen}"));
    service.wait_ready(Duration::from_secs(20), || matches!(http.try_get("/healthz"), Ok((200, _))));

    let laptop = json!({"service_url": format!("http://{listen}"), "service_token_file": "token-ci"});
    scope.file("laptop.json", &laptop.to_string());
    let before = fs::read_dir(scope.dir()).unwrap().count();
    let output = deployctl(&scope, "doctor --config laptop.json").ok();
    assert!(output.stdout.contains("takes our token ci, which may publish, start:staging"), "{output}");
    assert!(!output.stdout.contains("docker:") && !output.stdout.contains("state_dir"), "{output}");
    assert_eq!(fs::read_dir(scope.dir()).unwrap().count(), before, "nothing is created");
    fs::set_permissions(scope.dir().join("token-ci"), fs::Permissions::from_mode(0o644)).unwrap();
    let output = deployctl(&scope, "doctor --config laptop.json").expect(1);
    assert!(output.stdout.contains("mode 0644") && output.stdout.contains("chmod 600"), "{output}");
}
