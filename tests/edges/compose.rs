//! Compose projects on a real engine, by both versions of compose, with images from a real registry.

use std::{fs, net::TcpListener, path::PathBuf, time::Duration};

use deployctl::{
    api::Kind,
    compose::{ContainerState, DeployVars, EngineWatch, HealthFailure, Project, PullFailure, Rendered, UpFailure},
    config::{Config, Health},
    process::never,
};

use crate::support::{Behaviour, Engine, Images, Registry, Scope, require, tools_dir, wait_until};

/// A box's part of these tests: a registry, a compose file, and a project that is unique on the machine.
struct Lab {
    // In the order in which they must end.
    registry: Registry,
    images: Images,
    engine: Engine,
    scope: Scope,
}

impl Lab {
    fn new() -> Self {
        let scope = Scope::new();
        let engine = Engine::shared();
        let images = Images::new(&engine, &scope);
        Self { registry: Registry::start(&scope), images, engine, scope }
    }

    fn image(&self) -> String {
        format!("{}/app", self.registry.host())
    }

    fn push(&self, tag: &str, behaviour: Behaviour) {
        self.images.push(&self.engine, &format!("{}:{tag}", self.image()), behaviour);
    }

    /// A compose file whose service `app` has these lines besides its image.
    fn file(&self, lines: &str) {
        self.write(&format!(
            "version: \"3.8\"\nservices:\n  app:\n    image: {}:${{DEPLOY_TAG:?}}\n{lines}",
            self.image()
        ));
    }

    fn write(&self, text: &str) {
        self.scope.file("compose/app.yml", text);
    }

    fn project(&self, version: Version) -> Project {
        let config = serde_json::json!({
            "compose": version.program(&self.scope),
            "compose_dir": self.scope.dir().join("compose"),
            "state_dir": self.scope.dir().join("state"),
            "command_timeout": "60s",
            "roles": {"app": {"load_balancers": [], "project": self.scope.name()}}
        });
        Project::new(&Config::parse(&config.to_string()).unwrap(), &"app".parse().unwrap()).unwrap()
    }
}

/// Renders, fetches, starts and waits, as a deploy does.
fn deploy(project: &Project, tag: &str) -> Result<Rendered, HealthFailure> {
    let rendered = project.render(&vars(tag), &never).unwrap();
    project.pull(&rendered, Duration::from_secs(30), &never).unwrap();
    let before = project.up(&rendered, false, &never).unwrap();
    project.wait_healthy(&rendered, &health(), &before, &never).map(|()| rendered)
}

#[derive(Debug, Clone, Copy)]
enum Version {
    One,
    Two,
}

impl Version {
    /// Version 2 is a plugin of `docker`, in the tools folder on machines whose own `docker` has none.
    fn program(self, scope: &Scope) -> Vec<PathBuf> {
        match self {
            Self::One => vec!["docker-compose".into()],
            Self::Two => {
                let line = format!("DOCKER_CONFIG={} exec docker compose \"$@\"", tools_dir().join("docker").display());
                vec![scope.script("compose-2", &line)]
            }
        }
    }
}

fn vars(tag: &str) -> DeployVars {
    DeployVars {
        tag: tag.parse().unwrap(),
        role: "app".parse().unwrap(),
        environment: "production".parse().unwrap(),
        id: format!("app.production.of-{tag}"),
        kind: Kind::Deploy,
    }
}

fn health() -> Health {
    Health { url: None, timeout: Duration::from_secs(15), stable_for: Duration::from_secs(1) }
}

/// Runs a test with each version of compose.
macro_rules! with_both {
    ($($name:ident => $body:expr;)+) => {
        $(mod $name {
            use super::*;

            #[test]
            fn version_1() {
                require!("docker", "dockerd", "docker-compose", "docker-registry", "busybox");
                let body: fn(Version) = $body;
                body(Version::One);
            }

            #[test]
            fn version_2() {
                require!("docker", "dockerd", "docker-compose", "docker-registry", "busybox");
                let body: fn(Version) = $body;
                body(Version::Two);
            }
        })+
    };
}

with_both! {
    a_good_release_works => |version| {
        let lab = Lab::new();
        lab.push("v1", Behaviour::Good);
        lab.write(&format!(
            "version: \"3.8\"\nservices:\n  app:\n    image: {0}:${{DEPLOY_TAG:?}}\n    depends_on: [side]\n    \
             environment: [DEPLOY_ID, DEPLOY_KIND]\n  side:\n    image: {0}:v1\n  once:\n    image: {0}:v1\n    \
             command: [\"true\"]\n",
            lab.image()
        ));
        let project = lab.project(version);
        assert!(project.container(&never).unwrap().is_none());
        let rendered = deploy(&project, "v1").unwrap();

        let container = project.container(&never).unwrap().unwrap();
        assert_eq!(container.state, ContainerState::Running);
        assert_eq!(Some(&container.image), project.image_present(rendered.image()).unwrap().as_ref());
        assert!(project.runs(&rendered, &never).unwrap());
        assert!(project.is_healthy_now(&health(), &never).unwrap());
        let environment = lab.engine.docker(&["inspect", "-f", "{{.Config.Env}}", &container.id]);
        assert!(environment.contains("DEPLOY_ID=app.production.of-v1 "), "{environment}");
        assert!(environment.contains("DEPLOY_KIND=deploy"), "{environment}");

        // Another deploy of the same tag is the same but for its id, and leaves the container as it is.
        let again = project.render(&DeployVars { id: "app.production.2".to_owned(), ..vars("v1") }, &never).unwrap();
        assert!(again.is_same_as(&rendered));
        project.up(&rendered, false, &never).unwrap();
        assert_eq!(project.container(&never).unwrap().unwrap().id, container.id);
        project.up(&rendered, true, &never).unwrap();
        assert_ne!(project.container(&never).unwrap().unwrap().id, container.id);
    };

    the_previous_container_comes_back_whatever_the_file_says => |version| {
        let lab = Lab::new();
        lab.push("v1", Behaviour::Good);
        lab.push("v2", Behaviour::Exits);
        lab.file("    environment: {GREETING: \"pa$$ss: hello\"}\n");
        let project = lab.project(version);
        let first = deploy(&project, "v1").unwrap();
        let kept = serde_json::to_string(&first).unwrap();

        lab.file("    environment: {GREETING: goodbye}\n  extra:\n    image: deployctl-test-base\n");
        deploy(&project, "v2").unwrap_err();
        let previous: Rendered = serde_json::from_str(&kept).unwrap();
        let before = project.up(&previous, false, &never).unwrap();
        project.wait_healthy(&previous, &health(), &before, &never).unwrap();

        assert!(project.runs(&previous, &never).unwrap());
        let container = project.container(&never).unwrap().unwrap();
        let environment = lab.engine.docker(&["inspect", "-f", "{{.Config.Env}}", &container.id]);
        assert!(environment.contains("GREETING=pa$ss: hello"), "{environment}");
        let left = lab.engine.docker(&["ps", "-a", "--format", "{{.Names}}", "--filter", &format!("name={}", lab.scope.name())]);
        assert_eq!(left.lines().count(), 1, "{left}");
    };

    a_container_that_exits_is_at_fault => |version| {
        let lab = Lab::new();
        lab.push("v1", Behaviour::Exits);
        lab.file("    environment: {DATABASE: no database called orders, PLACE: production}\n");
        let project = lab.project(version);
        let failure = deploy(&project, "v1").unwrap_err();
        let HealthFailure::Unhealthy(reason) = failure else { panic!("{failure}") };
        assert!(reason.starts_with("app exited with code 3 after "), "{reason}");
        assert!(reason.contains(", its last words: ") && reason.contains("fatal: ***"), "{reason}");

        let rendered = project.render(&vars("v1"), &never).unwrap();
        let evidence = project.evidence(&rendered, &never).unwrap();
        assert_eq!((evidence.exit_code, evidence.state.as_str()), (Some(3), "exited"));
        let mut lines: Vec<&str> = evidence.logs.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["fatal: ***", "v1 starts and is exits"]);
        assert!(!project.runs(&rendered, &never).unwrap());
    };

    a_container_that_restarts_is_at_fault => |version| {
        let lab = Lab::new();
        lab.push("v1", Behaviour::Exits);
        lab.file("    restart: always\n");
        let failure = deploy(&lab.project(version), "v1").unwrap_err();
        let HealthFailure::Unhealthy(reason) = failure else { panic!("{failure}") };
        assert!(reason.contains("restart") && reason.contains("no database called orders"), "{reason}");
    };

    a_container_that_cannot_be_started_is_at_fault => |version| {
        let lab = Lab::new();
        lab.push("v1", Behaviour::Good);
        lab.push("v2", Behaviour::Good);
        lab.file("");
        let project = lab.project(version);
        let previous = deploy(&project, "v1").unwrap();
        for (line, expected) in [
            ("    entrypoint: [/nope]\n", "no such file or directory"),
            ("    command: [nope]\n", "executable file not found"),
            ("    user: nobody-here\n", "unable to find user"),
        ] {
            lab.file(line);
            let rendered = project.render(&vars("v2"), &never).unwrap();
            project.pull(&rendered, Duration::from_secs(30), &never).unwrap();
            match project.up(&rendered, false, &never).unwrap_err() {
                UpFailure::Release(reason) => assert!(reason.contains(expected), "{reason}"),
                UpFailure::Box(e) => panic!("{line} {e:#}"),
            }
            let evidence = project.evidence(&rendered, &never).unwrap();
            assert_eq!(evidence.state, "created");
            assert!(evidence.error.contains(expected), "{evidence}");

            let before = project.up(&previous, false, &never).unwrap();
            project.wait_healthy(&previous, &health(), &before, &never).unwrap();
            assert!(project.runs(&previous, &never).unwrap());
            assert!(project.evidence(&rendered, &never).unwrap_err().to_string().contains("no container was made"));
        }
    };

    what_the_box_lacks_is_its_own_fault => |version| {
        let lab = Lab::new();
        lab.push("v1", Behaviour::Good);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let project = lab.project(version);
        for lines in [
            format!("    ports: [\"127.0.0.1:{port}:8080\"]\n"),
            "    volumes: [\"/etc/hostname:/bin\"]\n".to_owned(),
            "    networks: [away]\nnetworks: {away: {external: true, name: deployctl-is-not-there}}\n".to_owned(),
        ] {
            lab.file(&lines);
            let rendered = project.render(&vars("v1"), &never).unwrap();
            project.pull(&rendered, Duration::from_secs(30), &never).unwrap();
            let failure = project.up(&rendered, false, &never).unwrap_err();
            assert!(matches!(failure, UpFailure::Box(_)), "{lines} {failure}");
        }
    };

    a_bad_file_is_told_in_one_line => |version| {
        let lab = Lab::new();
        let project = lab.project(version);
        let error = |text: &str| {
            lab.write(text);
            let error = format!("{:#}", project.render(&vars("v1"), &never).unwrap_err());
            assert!(error.contains("compose/app.yml") && !error.contains('\n'), "{error}");
            error
        };
        assert!(error("services:\n  app:\n    image: \"x/app:${TAG}\"\n").contains("${DEPLOY_TAG:?}"));
        assert!(error("services:\n  app:\n    image: \"x/app:${TAG:?}\"\n").contains("TAG"));
        assert!(error("services:\n  web:\n    image: \"x/app:${DEPLOY_TAG:?}\"\n").contains("no service app, but web"));
        assert!(error("services:\n  app:\n    imag: x\n").contains("imag"));
        assert!(error("services: [\n").contains("line"));
        error("");
        fs::remove_file(lab.scope.dir().join("compose/app.yml")).unwrap();
        let missing = project.render(&vars("v1"), &never).unwrap_err().to_string();
        assert!(missing.contains("there is no compose file"), "{missing}");
    };
}

#[test]
fn a_container_that_dies_later_is_not_stable() {
    require!("docker", "dockerd", "docker-compose", "docker-registry", "busybox");
    let lab = Lab::new();
    lab.push("v1", Behaviour::Dies);
    lab.file("");
    let project = lab.project(Version::One);
    let rendered = project.render(&vars("v1"), &never).unwrap();
    project.pull(&rendered, Duration::from_secs(30), &never).unwrap();
    let before = project.up(&rendered, false, &never).unwrap();
    let patient = Health { stable_for: Duration::from_secs(20), ..health() };
    let failure = project.wait_healthy(&rendered, &patient, &before, &never).unwrap_err();
    let HealthFailure::Unhealthy(reason) = failure else { panic!("{failure}") };
    assert!(reason.contains("exited with code 4") && reason.contains("fatal: out of patience"), "{reason}");
}

#[test]
fn a_container_that_never_becomes_healthy_is_at_fault_when_time_is_up() {
    require!("docker", "dockerd", "docker-compose", "docker-registry", "busybox");
    let lab = Lab::new();
    lab.push("v1", Behaviour::Unhealthy);
    lab.file("");
    let project = lab.project(Version::One);
    let rendered = project.render(&vars("v1"), &never).unwrap();
    project.pull(&rendered, Duration::from_secs(30), &never).unwrap();
    let before = project.up(&rendered, false, &never).unwrap();
    let brief = Health { timeout: Duration::from_secs(5), ..health() };
    let failure = project.wait_healthy(&rendered, &brief, &before, &never).unwrap_err();
    let HealthFailure::Unhealthy(reason) = failure else { panic!("{failure}") };
    assert!(reason.contains("its health check says: wget: server returned error: HTTP/1.1 404"), "{reason}");
    assert!(!project.is_healthy_now(&brief, &never).unwrap());
    assert!(project.evidence(&rendered, &never).unwrap().health.contains("404"));
}

#[test]
fn a_url_must_answer_too() {
    require!("docker", "dockerd", "docker-compose", "docker-registry", "busybox");
    let lab = Lab::new();
    lab.push("v1", Behaviour::Good);
    let port = crate::support::free_port();
    lab.file(&format!("    ports: [\"127.0.0.1:{port}:8080\"]\n"));
    let project = lab.project(Version::One);
    let rendered = deploy(&project, "v1").unwrap();
    let asking = |path: &str| Health {
        url: Some(format!("http://127.0.0.1:{port}/{path}")),
        timeout: Duration::from_secs(2),
        ..health()
    };
    let before = project.up(&rendered, false, &never).unwrap();
    project.wait_healthy(&rendered, &asking("health"), &before, &never).unwrap();
    let failure = project.wait_healthy(&rendered, &asking("nothing"), &before, &never).unwrap_err();
    assert!(failure.to_string().contains("answered 404 Not Found after 2."), "{failure}");
}

#[test]
fn a_tag_that_the_registry_does_not_know_is_told_from_a_registry_that_is_away() {
    require!("docker", "dockerd", "docker-compose", "docker-registry", "busybox");
    let mut lab = Lab::new();
    lab.push("v1", Behaviour::Good);
    lab.file("");
    let project = lab.project(Version::One);
    let unknown = project.render(&vars("v9"), &never).unwrap();
    let failure = project.pull(&unknown, Duration::from_secs(30), &never).unwrap_err();
    assert!(matches!(&failure, PullFailure::UnknownTag(reason) if reason.contains("app:v9")), "{failure}");

    let known = project.render(&vars("v1"), &never).unwrap();
    assert_eq!(project.image_present(known.image()).unwrap(), None);
    lab.registry.stop();
    let failure = project.pull(&known, Duration::from_secs(3), &never).unwrap_err();
    assert!(matches!(&failure, PullFailure::Other(e) if format!("{e:#}").contains("refused")), "{failure}");

    // Away for a while only.
    std::thread::scope(|scope| {
        let pull = scope.spawn(|| project.pull(&known, Duration::from_secs(30), &never));
        lab.registry.resume();
        pull.join().unwrap().unwrap();
    });
    assert!(project.image_present(known.image()).unwrap().is_some());
    let stopped = project.pull(&unknown, Duration::from_secs(30), &|| true).unwrap_err();
    assert!(matches!(stopped, PullFailure::Other(_)), "{stopped}");
}

#[test]
fn old_images_go_but_not_the_ones_in_use() {
    require!("docker", "dockerd", "docker-compose", "docker-registry", "busybox");
    let lab = Lab::new();
    lab.file("");
    let project = lab.project(Version::One);
    for tag in ["v1", "v2", "v3", "v4"] {
        lab.push(tag, Behaviour::Good);
        let rendered = project.render(&vars(tag), &never).unwrap();
        project.pull(&rendered, Duration::from_secs(30), &never).unwrap();
    }
    let first = deploy(&project, "v1").unwrap();
    let second = project.render(&vars("v2"), &never).unwrap();
    let previous = project.image_present(second.image()).unwrap().unwrap();
    project.prune(&first, 1, &[previous]).unwrap();
    let left = lab.engine.docker(&["images", "--format", "{{.Tag}}", &lab.image()]);
    let mut left: Vec<&str> = left.lines().collect();
    left.sort_unstable();
    // The two newest may be of the same second.
    assert!(left.len() == 3 && left.starts_with(&["v1", "v2"]), "{left:?}");
}

#[test]
fn the_installed_program_is_chosen_once() {
    require!("docker-compose");
    let scope = Scope::new();
    let config = serde_json::json!({"state_dir": scope.dir().join("state"), "roles": {"app": {"load_balancers": []}}});
    let config = Config::parse(&config.to_string()).unwrap();
    Project::new(&config, &"app".parse().unwrap()).unwrap();
    let kept = scope.dir().join("state/compose");
    assert_eq!(fs::read_to_string(&kept).unwrap(), "docker-compose\n");
    let made = fs::metadata(&kept).unwrap().modified().unwrap();
    Project::new(&config, &"app".parse().unwrap()).unwrap();
    assert_eq!(fs::metadata(&kept).unwrap().modified().unwrap(), made);
}

#[test]
fn an_engine_that_stops_or_restarts_is_noticed() {
    require!("docker", "dockerd", "ip");
    let scope = Scope::new();
    let mut engine = Engine::private(&scope);
    let host = engine.host().unwrap().to_owned();
    let watch = EngineWatch::at(&host).unwrap();
    assert!(!watch.was_interrupted());
    engine.stop();
    assert!(watch.was_interrupted());
    assert!(EngineWatch::at(&host).is_err());
    engine.resume(&scope);
    assert!(watch.was_interrupted());
    let watch = EngineWatch::at(&host).unwrap();
    assert!(!watch.was_interrupted());
    engine.kill();
    engine.resume(&scope);
    assert!(watch.was_interrupted());
}

#[test]
fn an_engine_that_is_stopping_is_noticed_when_its_containers_have_ended() {
    require!("docker", "dockerd", "ip", "busybox");
    let scope = Scope::new();
    let mut engine = Engine::private(&scope);
    let _base = Images::new(&engine, &scope);
    // As a first process it takes no notice of TERM: the engine waits for it while it stops.
    let id = engine.docker(&["run", "--detach", "--stop-timeout", "2", "deployctl-test-base", "sleep", "1000"]);
    let watch = EngineWatch::at(engine.host().unwrap()).unwrap();
    let mut look = engine.command(&["inspect", "--format", "{{.State.Running}}", &id]);
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| engine.stop());
        wait_until(Duration::from_secs(20), "the container ends", || {
            !look.output().is_ok_and(|output| output.stdout.starts_with(b"true"))
        });
        assert!(watch.was_interrupted());
        stop.join().unwrap();
    });
}

#[test]
fn the_machine_s_own_engine_is_watched_without_being_told_where_it_is() {
    require!("docker", "dockerd");
    assert!(!EngineWatch::start().unwrap().was_interrupted());
}
