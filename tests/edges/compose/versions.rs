//! What must be the same by both versions of compose.

use std::{fs, net::TcpListener, time::Duration};

use deployctl::{
    compose::{ContainerState, DeployVars, HealthFailure, Rendered, UpFailure},
    process::never,
};

use super::{Lab, Version, deploy, health, vars};
use crate::support::{Behaviour, require};

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
                require!("docker", "dockerd", "docker compose", "docker-registry", "busybox");
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
        assert!(project.container().unwrap().is_none());
        let rendered = deploy(&project, "v1").unwrap();

        let container = project.container().unwrap().unwrap();
        assert_eq!(container.state, ContainerState::Running);
        assert_eq!(Some(&container.image), project.image_present(rendered.image()).unwrap().as_ref());
        assert!(project.runs(&rendered).unwrap());
        assert!(project.is_healthy_now(&rendered, &health()).unwrap());
        let environment = lab.engine.docker(&["inspect", "-f", "{{.Config.Env}}", &container.id]);
        assert!(environment.contains("DEPLOY_ID=app.production.of-v1 "), "{environment}");
        assert!(environment.contains("DEPLOY_KIND=deploy"), "{environment}");

        // Another deploy of the same tag is the same but for its id, and leaves the container as it is.
        let again = project.render(&DeployVars { id: "app.production.2".to_owned(), ..vars("v1") }, &never).unwrap();
        assert!(again.is_same_as(&rendered));
        project.up(&rendered, false, &never).unwrap();
        assert_eq!(project.container().unwrap().unwrap().id, container.id);
        project.up(&rendered, true, &never).unwrap();
        assert_ne!(project.container().unwrap().unwrap().id, container.id);
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
        project.wait_healthy(&previous, &health(), &before, None, &never).unwrap();

        assert!(project.runs(&previous).unwrap());
        let container = project.container().unwrap().unwrap();
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
        let evidence = project.evidence(&rendered).unwrap();
        assert_eq!((evidence.exit_code, evidence.state.as_str()), (Some(3), "exited"));
        let mut lines: Vec<&str> = evidence.logs.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["fatal: ***", "v1 starts and is exits"]);
        assert!(!project.runs(&rendered).unwrap());
    };

    a_container_that_restarts_is_at_fault => |version| {
        let lab = Lab::new();
        lab.push("v1", Behaviour::Exits);
        lab.file("    restart: always\n");
        let failure = deploy(&lab.project(version), "v1").unwrap_err();
        let HealthFailure::Unhealthy(reason) = failure else { panic!("{failure}") };
        assert!(reason.contains("restart") && reason.contains("no database called orders"), "{reason}");
    };

    a_container_that_is_missing_is_missed => |version| {
        let lab = Lab::new();
        lab.push("v1", Behaviour::Good);
        lab.file("    deploy: {replicas: 2}\n");
        let project = lab.project(version);
        let rendered = deploy(&project, "v1").unwrap();
        assert!(project.is_healthy_now(&rendered, &health()).unwrap());
        lab.engine.docker(&["rm", "--force", &project.container().unwrap().unwrap().id]);
        assert!(!project.is_healthy_now(&rendered, &health()).unwrap());
        project.up(&rendered, false, &never).unwrap();
        let again = project.render(&vars("v1"), &never).unwrap();
        let before = project.up(&again, false, &never).unwrap();
        project.wait_healthy(&again, &health(), &before, None, &never).unwrap();
    };

    a_container_may_take_its_grace_period_to_stop_whatever_command_timeout_is => |version| {
        let lab = Lab::new();
        // Nothing that is sent to it before SIGKILL ends it.
        lab.file("    stop_signal: SIGWINCH\n    stop_grace_period: 14s\n");
        let project = lab.project_within(version, "12s");
        lab.push("v1", Behaviour::Good);
        lab.push("v2", Behaviour::Good);
        deploy(&project, "v1").unwrap();
        deploy(&project, "v2").unwrap();
    };

    a_container_that_was_paused_is_made_anew => |version| {
        let lab = Lab::new();
        lab.push("v1", Behaviour::Good);
        lab.file("");
        let project = lab.project(version);
        let rendered = deploy(&project, "v1").unwrap();
        lab.engine.docker(&["pause", &project.container().unwrap().unwrap().id]);
        assert!(!project.is_healthy_now(&rendered, &health()).unwrap());
        let before = project.up(&rendered, false, &never).unwrap();
        project.wait_healthy(&rendered, &health(), &before, None, &never).unwrap();
    };

    a_helper_that_needs_two_tries_is_no_broken_release => |version| {
        let lab = Lab::new();
        lab.push("v1", Behaviour::Good);
        let helper = "restart: on-failure\n    command: [sh, -c, \"if [ -e /tried ]; then exit 0; fi; touch /tried; exit 1\"]";
        lab.file(&format!("  migrate:\n    image: {}:v1\n    {helper}\n", lab.image()));
        let project = lab.project(version);
        deploy(&project, "v1").unwrap();
        // One that never comes up is, with its own words as evidence.
        lab.file(&format!(
            "  side:\n    image: {}:v1\n    restart: always\n    command: [sh, -c, \"echo no app yet; exit 1\"]\n",
            lab.image()
        ));
        let failure = deploy(&project, "v1").unwrap_err();
        let HealthFailure::Unhealthy(reason) = failure else { panic!("{failure}") };
        assert!(reason.contains("side") && reason.contains("no app yet"), "{reason}");
        let evidence = project.evidence(&project.render(&vars("v1"), &never).unwrap()).unwrap();
        assert!(evidence.logs.contains("no app yet"), "{evidence}");
    };

    an_image_must_follow_the_tag => |version| {
        let lab = Lab::new();
        let project = lab.project(version);
        lab.write("services:\n  app:\n    image: 127.0.0.1:47312/app:v1\n");
        let error = format!("{:#}", project.render(&vars("12"), &never).unwrap_err());
        assert!(error.contains("app:v1 whatever the tag is"), "{error}");
        lab.write("services:\n  app:\n    image: \"r/app:${DEPLOY_TAG:?}-slim\"\n  debug:\n    profiles: [tools]\n    image: r/debug\n");
        let rendered = project.render(&vars("12"), &never).unwrap();
        assert_eq!((rendered.image(), rendered.other_images().len()), ("r/app:12-slim", 0));
        lab.write("services:\n  app:\n    image: \"r/app:${DEPLOY_TAG:?}\"\n  side:\n    build: .\n");
        let error = format!("{:#}", project.render(&vars("12"), &never).unwrap_err());
        assert!(error.contains("service side has no image"), "{error}");
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
            let evidence = project.evidence(&rendered).unwrap();
            assert_eq!(evidence.state, "created");
            assert!(evidence.error.contains(expected), "{evidence}");

            let before = project.up(&previous, false, &never).unwrap();
            project.wait_healthy(&previous, &health(), &before, None, &never).unwrap();
            assert!(project.runs(&previous).unwrap());
            assert!(project.evidence(&rendered).unwrap_err().to_string().contains("no container was made"));
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
