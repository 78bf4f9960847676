//! Tiny images that behave well or badly, in a real registry.

use std::{fs, os::unix::fs::PermissionsExt};

use super::{
    command::{run, run_with_input},
    docker::Engine,
    tools,
};

/// What a container of an image does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Serves its tag at `/`, and `/health`.
    Good,
    /// Says why on stderr and exits with 3.
    Exits,
    /// Runs, and never answers `/health`.
    Unhealthy,
    /// Healthy, and after 3 s it exits with 4.
    Dies,
    /// Answers `/health` only after 5 s.
    Slow,
}

impl Behaviour {
    /// As `BEHAVIOUR` and a box's folder `host` say it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Exits => "exits",
            Self::Unhealthy => "unhealthy",
            Self::Dies => "dies",
            Self::Slow => "slow",
        }
    }
}

/// The entry point of every test image. `PORT` and `BEHAVIOUR` may be set by a compose file, too.
const START: &str = r#"#!/bin/sh
# A shell as the first process has no default for SIGTERM: without this, every stop would take Docker's 10 s.
trap 'kill $! 2>/dev/null; exit 0' TERM INT
# What the machine does to every image on it.
[ -f /host/behaviour ] && BEHAVIOUR=$(cat /host/behaviour)
mkdir -p /www
echo "$TAG" >/www/index.html
env >/www/env
echo "$TAG starts and is $BEHAVIOUR"
case $BEHAVIOUR in
    exits)
        echo "fatal: no database called orders" >&2
        exit 3
        ;;
    unhealthy) ;;
    slow) { sleep 5; echo ok >/www/health; } & ;;
    *) echo ok >/www/health ;;
esac
httpd -f -p "$PORT" -h /www &
if [ "$BEHAVIOUR" = dies ]; then
    sleep 3 & wait $!
    echo "fatal: out of patience" >&2
    exit 4
fi
wait $!
"#;

const BASE: &str = r#"FROM scratch
COPY busybox /bin/busybox
COPY start /bin/start
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PORT=8080 BEHAVIOUR=good TAG=none
HEALTHCHECK --interval=1s --timeout=2s --retries=3 CMD wget -q -O /dev/null http://127.0.0.1:$PORT/health
CMD ["/bin/start"]
"#;

/// Builds images. The scope marks each of them, so that they can be removed.
#[derive(Debug)]
pub struct Images {
    scope: String,
    base: String,
}

impl Images {
    /// Builds on an engine what all images share, if it has it not yet.
    pub fn new(engine: &Engine, scope: &super::Scope) -> Self {
        let base = "deployctl-test-base".to_owned();
        let dir = scope.subdir("image");
        fs::copy(tools::program("busybox"), dir.join("busybox")).unwrap();
        fs::write(dir.join("Dockerfile"), BASE).unwrap();
        fs::write(dir.join("start"), START).unwrap();
        for name in ["busybox", "start"] {
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut build = engine.command(&["build", "--quiet", "--tag", &base, dir.to_str().unwrap()]);
        run(build.env("DOCKER_BUILDKIT", "0")).ok();
        Self { scope: scope.name().to_owned(), base }
    }

    /// Builds `image` (`host:port/role:tag`) and pushes it. The engine forgets it, so that boxes have to pull it.
    #[track_caller]
    pub fn push(&self, engine: &Engine, image: &str, behaviour: Behaviour) {
        let (_, tag) = image.rsplit_once(':').expect("an image with a tag");
        let dockerfile = format!(
            "FROM {}\nLABEL scope={} image={image}\nENV TAG={tag} BEHAVIOUR={}\n",
            self.base,
            self.scope,
            behaviour.word()
        );
        let mut build = engine.command(&["build", "--quiet", "--tag", image, "-"]);
        run_with_input(build.env("DOCKER_BUILDKIT", "0"), dockerfile.as_bytes()).ok();
        engine.docker(&["push", "--quiet", image]);
        engine.docker(&["rmi", image]);
    }
}
