//! The files that a fleet is provisioned with, used for real as far as one machine allows.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::documents::document::{blocks, documents, file};
use crate::support::{Output, Scope, free_port, require, run, wait_until};

fn project(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A `provision.sh` command for a box or the service's host, into the scope's folder `root`.
fn provision(scope: &Scope, kind: &str) -> Command {
    let key = scope.dir().join("serf-key");
    if !key.exists() {
        scope.file("serf-key", &run(scope.command("serf").arg("keygen")).ok().stdout);
    }
    let mut command = scope.command(project("scripts/provision.sh").to_str().unwrap());
    command.arg(kind).args(["--join", "deploys.internal", "--name", "here"]);
    command.arg("--root").arg(scope.dir().join("root")).arg("--serf-key").arg(key);
    command.arg("--binary").arg(env!("CARGO_BIN_EXE_deployctl"));
    command.arg("--secret").arg(scope.file("token", "a-token\n"));
    // The example, with hashes where it has none.
    let example = file(&format!("scripts/config/{kind}.json"))
        .replace(r#""sha256": "…""#, &format!(r#""sha256": "{}""#, "0".repeat(64)));
    command.arg("--config").arg(scope.file(&format!("{kind}.json"), &example));
    if kind == "box" {
        command.args(["--environment", "staging", "--roles", "app,web", "--compose"]).arg(project("compose"));
    }
    command
}

fn agent(scope: &Scope, name: &str, dir: &Path, port: u16, rpc: &str) -> Command {
    let mut command = scope.command("serf");
    command.arg("agent").arg(format!("-config-dir={}", dir.display()));
    command.arg(format!("-bind=127.0.0.1:{port}")).arg(format!("-rpc-addr={rpc}"));
    command.arg(format!("-snapshot={}", scope.dir().join(format!("{name}.snapshot")).display()));
    command
}

#[test]
fn the_secrets_are_made_as_the_document_says() {
    require!("serf", "openssl", "bash");
    let scope = Scope::new();
    let text = documents();
    let block =
        blocks(&text).into_iter().find(|block| block.text.contains("serf keygen")).expect("the block of step 1");
    let made = run(scope.command("bash").args(["-euc", &block.text])).ok();
    let printed: Vec<(&str, &str)> = made.stdout.lines().filter_map(|line| line.split_once(": ")).collect();
    let names: Vec<&str> = printed.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["ci", "staging-boxes", "production-boxes", "ops"]);
    for (name, hash) in printed {
        assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "the service takes it: {hash:?}");
        let file = scope.dir().join(format!("token-{name}"));
        assert_eq!(fs::read_to_string(&file).unwrap().len(), 64);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o077, 0, "nobody else reads it");
    }
}

#[test]
fn a_box_is_provisioned_once_and_its_agent_starts() {
    require!("serf");
    let scope = Scope::new();
    let dry = run(provision(&scope, "box").arg("--dry-run")).ok();
    assert!(dry.stdout.contains("would write") && !scope.dir().join("root").exists(), "{dry}");
    assert!(!dry.stdout.contains("a-token"), "{dry}");
    let first = run(&mut provision(&scope, "box")).ok();
    assert!(first.stdout.contains("/etc/deployctl/compose/web.yml"), "{first}");
    let again = run(&mut provision(&scope, "box")).ok();
    assert_eq!(again.stdout.trim(), "every file is as it should be");
    let changed = run(provision(&scope, "box").args(["--environment", "production", "--zone", "eu-1a"])).ok();
    assert!(changed.stdout.ends_with("/etc/serf/local.json (644)\n"), "{changed}");

    let etc = scope.dir().join("root/etc/serf");
    let rpc = format!("127.0.0.1:{}", free_port());
    let _agent = scope.start("serf", &mut agent(&scope, "box", &etc, free_port(), &rpc));
    let info = || run(scope.command("serf").args(["info", "-format=json"]).arg(format!("-rpc-addr={rpc}")));
    wait_until(Duration::from_secs(15), "the agent answers", || info().code == Some(0));
    let info = info().ok().json();
    assert_eq!(info["tags"]["images"], "app,web");
    assert_eq!(info["tags"]["environment"], "production");
    assert_eq!(info["tags"]["zone"], "eu-1a");
    assert_eq!(info["serf"]["encrypted"], "true");
    assert_eq!(info["event_handlers"]["user:deploy"], "/usr/local/bin/deployctl handle");
}

#[test]
fn the_services_host_is_provisioned() {
    require!("serf");
    let scope = Scope::new();
    run(provision(&scope, "service").arg("--redis-password").arg(scope.file("password", "secret\n"))).ok();
    let root = scope.dir().join("root/etc");
    assert!(root.join("systemd/system/deployctl-service.service").exists());
    assert!(fs::read_to_string(root.join("redis/deployctl.conf")).unwrap().ends_with("requirepass secret\n"));
    assert!(!root.join("serf/box.json").exists(), "the service's host handles no events");
}

#[test]
fn provisioning_refuses_what_would_not_work() {
    require!("serf");
    let scope = Scope::new();
    let refused_on = |kind: &str, arguments: &[&str], part: &str| {
        let output: Output = run(provision(&scope, kind).args(arguments)).expect(1);
        assert!(output.stderr.contains(part), "{output}");
        assert!(!scope.dir().join("root").exists());
    };
    let refused = |arguments: &[&str], part: &str| refused_on("box", arguments, part);
    refused(&["--roles", "app,nothing"], "nothing.yml is not a file");
    refused(&["--environment", "sta\"ging"], "is no role or environment");
    refused(&["--environment", "a.b"], "is no role or environment");
    refused(&["--zone", "a\"b"], "is no zone");
    refused(&["--roles", "app\nweb"], "separate roles with commas");
    let broken = scope.file("broken.json", "{half").display().to_string();
    refused_on("service", &["--config", &broken], "nothing was changed");
    let without_hashes = project("scripts/config/service.json").display().to_string();
    refused_on("service", &["--config", &without_hashes], "sha256");
    refused(&["--serf-key", project("serf/key.json").to_str().unwrap()], "holds no key");
    refused(&["--what", "x"], "no such option: --what");
}

/// Everything that a package holds, in the scope's folder `root`, as if it were installed there.
fn install_package(scope: &Scope) {
    let manual = Path::new(env!("CARGO_BIN_EXE_deployctl")).with_file_name("examples/manual");
    let mut lay = scope.command(project("scripts/packages.sh").to_str().unwrap());
    lay.arg("lay").arg(scope.dir().join("laid")).arg(env!("CARGO_BIN_EXE_deployctl")).arg(manual);
    run(&mut lay).ok();
    run(scope.command("cp").args(["--recursive", "--no-target-directory", "laid/programs", "root"])).ok();
    run(scope.command("cp").args(["--recursive", "--no-target-directory", "laid/files", "root"])).ok();
}

#[test]
fn a_package_has_what_its_units_name_and_provisions_by_itself() {
    require!("serf");
    let scope = Scope::new();
    install_package(&scope);
    let root = scope.dir().join("root");
    for entry in fs::read_dir(project("scripts/systemd")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("deployctl") {
            let unit = fs::read_to_string(root.join("usr/lib/systemd/system").join(&name)).unwrap();
            for program in unit.lines().filter_map(|line| line.strip_prefix("ExecStart=/")) {
                let program = program.split(' ').next().unwrap();
                assert!(root.join(program).exists(), "{name} runs /{program}");
            }
        }
    }

    // What was there before, without a package, would hide it.
    for old in ["root/usr/local/bin/deployctl", "root/etc/systemd/system/deployctl@.service"] {
        scope.file(old, "of an earlier version");
    }
    // By its own copy, from which nothing may be missing.
    let own = root.join("usr/share/deployctl/scripts/provision.sh");
    for (kind, arguments) in [("box", vec![]), ("service", vec!["--redis-password", "password"])] {
        scope.file("password", "secret\n");
        let given = provision(&scope, kind);
        let without_binary = given.get_args().collect::<Vec<_>>();
        let at = without_binary.iter().position(|argument| *argument == "--binary").unwrap();
        let mut command = scope.command(own.to_str().unwrap());
        command.args(&without_binary[..at]).args(&without_binary[at + 2..]).args(arguments);
        let said = run(&mut command).ok().stdout;
        let hides = |line: &&str| line.contains("/usr/local/") || line.contains("/system/deployctl");
        assert_eq!(said.lines().filter(|line| line.starts_with("writes ")).find(hides), None, "{said}");
    }
    assert!(!root.join("usr/local/bin/deployctl").exists());
    assert!(!root.join("etc/systemd/system/deployctl@.service").exists());
    let handlers = fs::read_to_string(root.join("etc/serf/box.json")).unwrap();
    assert!(handlers.contains("user:deploy=/usr/bin/deployctl handle"), "{handlers}");
    let refused = run(&mut provision(&scope, "box")).expect(1);
    assert!(refused.stderr.contains("installed here as a package"), "{refused}");
}

#[test]
fn both_packages_hold_what_is_laid_out() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--offline", "--no-deps", "--format-version", "1"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let metadata = &run(&mut cargo).ok().json()["packages"][0]["metadata"];
    let rows = |kind: &str| metadata[kind]["assets"].as_array().unwrap().clone();
    let deb: Vec<_> = rows("deb").into_iter().map(|row| (row[0].clone(), row[1].clone(), row[2].clone())).collect();
    let row = |row: serde_json::Value| (row["source"].clone(), row["dest"].clone(), row["mode"].clone());
    assert_eq!(deb, rows("generate-rpm").into_iter().map(row).collect::<Vec<_>>());
    for script in ["post_install_script", "pre_uninstall_script", "post_uninstall_script"] {
        let path = metadata["generate-rpm"][script].as_str().unwrap();
        assert!(path.starts_with(metadata["deb"]["maintainer-scripts"].as_str().unwrap()), "{path}");
        run(Command::new("sh").arg("-n").arg(project(path))).ok();
    }
}

#[test]
fn the_key_that_is_none_starts_no_agent() {
    require!("serf");
    let scope = Scope::new();
    let rpc = format!("127.0.0.1:{}", free_port());
    let output = run(&mut agent(&scope, "key", &project("serf"), free_port(), &rpc)).expect(1);
    assert!(format!("{output}").contains("Invalid encryption key"), "{output}");
}

#[test]
fn units_are_what_systemd_understands() {
    require!("systemd-analyze");
    let scope = Scope::new();
    // The programs are not installed on this machine; systemd wants to see them.
    let autoscaling = project("scripts/autoscaling.sh").display().to_string();
    for entry in fs::read_dir(project("scripts/systemd")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let unit = fs::read_to_string(entry.path()).unwrap();
        let unit = unit.replace("/usr/bin/deployctl", env!("CARGO_BIN_EXE_deployctl"));
        scope.file(&format!("units/{name}"), &unit.replace("/usr/lib/deployctl/autoscaling.sh", &autoscaling));
    }
    for name in [
        "deployctl@.service",
        "deployctl-sync.service",
        "deployctl-sync.timer",
        "deployctl-service.service",
        "deployctl-terminate.service",
    ] {
        let mut command = scope.command("systemd-analyze");
        let output = run(command.args(["verify", "--man=no"]).arg(scope.dir().join("units").join(name))).ok();
        assert_eq!(output.stderr.trim(), "", "{name}");
    }
}

#[test]
fn example_compose_files_render_with_a_tag_and_not_without() {
    require!("docker-compose");
    let scope = Scope::new();
    for (role, image) in [("app", "registry.internal/app:v1"), ("web", "registry.internal/web:v1")] {
        let compose = |tag: &str| {
            let mut command = scope.command("docker-compose");
            command.arg("--file").arg(project(&format!("compose/{role}.yml"))).args(["--project-name", role, "config"]);
            run(command.env("DEPLOY_TAG", tag).env("DEPLOY_ENVIRONMENT", "staging"))
        };
        let rendered = compose("v1").ok().stdout;
        assert!(rendered.contains(image), "{rendered}");
        assert_ne!(compose("").code, Some(0), "an empty tag must be refused");
    }
}

#[test]
fn the_policy_allows_the_calls_that_are_made_and_no_others() {
    let policy: serde_json::Value = serde_json::from_str(&file("scripts/iam-policy.json")).unwrap();
    let mut allowed = BTreeSet::new();
    for statement in policy["Statement"].as_array().unwrap() {
        match &statement["Action"] {
            serde_json::Value::Array(actions) => allowed.extend(actions.iter().map(|a| a.as_str().unwrap().to_owned())),
            action => _ = allowed.insert(action.as_str().unwrap().to_owned()),
        }
    }
    let mut made = BTreeSet::new();
    for (path, service) in [
        ("src/load_balancer/elbv2.rs", "elasticloadbalancing"),
        ("src/load_balancer/elb.rs", "elasticloadbalancing"),
        ("scripts/autoscaling.sh", "autoscaling"),
    ] {
        let text = file(path);
        let code = text.split("#[cfg(test)]").next().unwrap();
        for word in code.split(['"', ' ']) {
            if ["describe-", "register-", "deregister-", "complete-"].iter().any(|verb| word.starts_with(verb)) {
                let action: String = word.split('-').map(|part| part[..1].to_uppercase() + &part[1..]).collect();
                made.insert(format!("{service}:{action}"));
            }
        }
    }
    assert_eq!(allowed, made);
}
