//! The parts that fleets are made of work by themselves: when these fail, look here first.

use std::time::{Duration, Instant};

use crate::support::{
    Behaviour, Engine, Http, Images, Moto, Prometheus, Redis, Registry, Scope, free_port, require, run, wait_for,
};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn an_image_goes_through_the_registry_and_tells_its_tag() {
    require!("docker", "docker-registry", "busybox");
    let scope = Scope::new();
    let engine = Engine::shared();
    let registry = Registry::start(&scope);
    let image = format!("{}/app:v1", registry.host());
    Images::new(&engine, &scope).push(&engine, &image, Behaviour::Good);

    let (port, name) = (free_port(), format!("{}-box", scope.name()));
    let publish = format!("127.0.0.1:{port}:8080");
    engine.docker(&["run", "--detach", "--name", &name, "--publish", &publish, &image]);
    let page =
        wait_for(SOON, "the container answers", || match Http::new(&format!("http://127.0.0.1:{port}")).try_get("/") {
            Ok((200, page)) => Ok(page),
            other => Err(format!("{other:?}")),
        });
    assert_eq!(page.trim(), "v1");
    wait_for(SOON, "the container is healthy", || {
        let health = engine.docker(&["inspect", "--format", "{{.State.Health.Status}}", &name]);
        if health == "healthy" { Ok(()) } else { Err(health) }
    });
    let started = Instant::now();
    engine.docker(&["stop", &name]);
    assert!(started.elapsed() < Duration::from_secs(5), "a stop took {:?}", started.elapsed());
}

#[test]
fn bad_images_are_bad_in_their_own_ways() {
    require!("docker", "docker-registry", "busybox");
    let scope = Scope::new();
    let engine = Engine::shared();
    let registry = Registry::start(&scope);
    let images = Images::new(&engine, &scope);
    let start = |tag: &str, behaviour: Behaviour| {
        let image = format!("{}/app:{tag}", registry.host());
        images.push(&engine, &image, behaviour);
        let name = format!("{}-{tag}", scope.name());
        engine.docker(&["run", "--detach", "--name", &name, &image]);
        name
    };
    let (exits, unhealthy, dies) =
        (start("exits", Behaviour::Exits), start("unhealthy", Behaviour::Unhealthy), start("dies", Behaviour::Dies));
    let reaches = |name: &str, format: &str, state: &str| {
        wait_for(SOON, &format!("{name} is {state}"), || {
            let seen = engine.docker(&["inspect", "--format", format, name]);
            if seen == state { Ok(()) } else { Err(seen) }
        });
    };
    reaches(&exits, "{{.State.Status}} {{.State.ExitCode}}", "exited 3");
    let said = run(&mut engine.command(&["logs", &exits])).ok();
    assert!(said.stderr.contains("no database called orders"), "{said}");
    reaches(&dies, "{{.State.Health.Status}}", "healthy");
    reaches(&dies, "{{.State.Status}} {{.State.ExitCode}}", "exited 4");
    reaches(&unhealthy, "{{.State.Health.Status}}", "unhealthy");
}

#[test]
fn the_aws_cli_and_moto_agree_on_who_is_registered() {
    require!("aws", "moto_server");
    let scope = Scope::new();
    let moto = Moto::start(&scope);
    let aws = |args: &[&str]| {
        let mut command = scope.command("aws");
        moto.environment(command.args(args));
        run(&mut command).ok();
    };
    let group = moto.target_group("app", "ip");
    let sampler = group.sample();
    let targets = ["Id=127.0.0.11,Port=8011", "Id=127.0.0.12,Port=8012"];
    let region = ["--region", "us-east-1"];
    aws(&[&["elbv2", "register-targets", "--target-group-arn", group.arn(), "--targets"], &targets[..], &region]
        .concat());
    assert_eq!(Vec::from_iter(group.registered()), ["127.0.0.11", "127.0.0.12"]);
    aws(&[&["elbv2", "deregister-targets", "--target-group-arn", group.arn(), "--targets", targets[0]], &region[..]]
        .concat());
    assert_eq!(Vec::from_iter(group.registered()), ["127.0.0.12"]);
    wait_for(SOON, "the sampler sees it", || {
        let seen = sampler.timeline();
        if seen.lines().last().is_some_and(|line| line.ends_with(r#"{"127.0.0.12"}"#)) { Ok(()) } else { Err(seen) }
    });

    let classic = moto.load_balancer("app-lb");
    let instance = &moto.instances(1)[0];
    let load_balancer = ["--load-balancer-name", classic.name(), "--instances", instance];
    aws(&[&["elb", "register-instances-with-load-balancer"], &load_balancer[..], &region].concat());
    assert_eq!(Vec::from_iter(classic.registered()), [instance.as_str()]);
    aws(&[&["elb", "deregister-instances-from-load-balancer"], &load_balancer[..], &region].concat());
    assert!(classic.registered().is_empty());
}

#[test]
fn redis_keeps_what_was_written_through_a_kill() {
    require!("redis-server");
    let scope = Scope::new();
    let mut redis = Redis::start(&scope);
    redis.command(&["SET", "key", "value"]);
    redis.kill();
    redis.resume();
    assert_eq!(redis.command(&["GET", "key"]), "value");
    redis.flush();
    assert_eq!(redis.keys("*"), Vec::<String>::new());
}

#[test]
fn a_private_engine_restarts_without_the_machines_noticing() {
    require!("docker", "dockerd", "docker-registry", "busybox", "ip");
    let scope = Scope::new();
    let mut engine = Engine::private(&scope);
    let registry = Registry::start(&scope);
    let image = format!("{}/app:v1", registry.host());
    Images::new(&engine, &scope).push(&engine, &image, Behaviour::Good);
    let publish = format!("127.0.0.7:{}:8080", free_port());
    let site = Http::new(&format!("http://{}", publish.strip_suffix(":8080").unwrap()));
    engine.docker(&["run", "--detach", "--restart", "always", "--publish", &publish, &image]);
    let answers = || {
        wait_for(SOON, "the container answers", || match site.try_get("/") {
            Ok((200, page)) if page.trim() == "v1" => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    answers();
    engine.kill();
    assert!(!engine.is_up());
    engine.resume(&scope);
    answers();
    engine.stop();
    assert!(site.try_get("/").is_err());
    engine.resume(&scope);
    answers();
    assert!(Engine::shared().docker(&["network", "ls"]).contains("bridge"));
}

#[test]
fn prometheus_tells_what_a_test_sets() {
    require!("prometheus", "busybox");
    let scope = Scope::new();
    let prometheus = Prometheus::start(&scope);
    prometheus.set("error_rate", 0.5);
    prometheus.set("error_rate", 0.01);
}
