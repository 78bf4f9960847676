//! The argument lists for compose and Docker: what is run, apart from running it.
//!
//! Compose is only asked to render and to start; both versions agree on these words. Everything else is asked of the
//! engine itself, whose answers do not differ between them.

use std::{path::Path, time::Duration};

use super::vars::DeployVars;
use crate::process::Program;

/// How long a question to the engine may take that it answers from memory.
pub(super) const QUESTION: Duration = Duration::from_secs(20);

/// How many of a container's last lines are evidence.
const LOG_LINES: &str = "100";

/// Compose, for one project.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compose<'a> {
    /// The program and its first arguments.
    pub(super) program: &'a [String],
    pub(super) project: &'a str,
    pub(super) file: &'a Path,
    pub(super) timeout: Duration,
}

impl Compose<'_> {
    fn run(&self, arguments: &[&str], variables: Vec<(String, String)>) -> Program {
        let arguments = arguments.iter().map(|&argument| argument.to_owned());
        Program::new(self.timeout, self.program.iter().cloned().chain(arguments)).envs(variables)
    }

    /// Renders the file.
    pub(super) fn config(&self, variables: Vec<(String, String)>) -> Program {
        let file = self.file.display().to_string();
        self.run(&["--file", &file, "--project-name", self.project, "config"], variables)
    }

    /// Starts what was rendered. Through standard input: the file may have changed since, and secrets need no other
    /// file. Nothing is built on a box; services that left the file leave the box, or they would keep their ports.
    pub(super) fn up(&self, rendered: &str, vars: &DeployVars, recreate: bool) -> Program {
        let folder = self.file.parent().unwrap_or(Path::new("/")).display().to_string();
        let mut arguments = vec!["--file", "-", "--project-directory", &folder, "--project-name", self.project];
        arguments.extend(["up", "--detach", "--no-build", "--remove-orphans"]);
        arguments.extend(recreate.then_some("--force-recreate"));
        self.run(&arguments, vars.pairs()).stdin(rendered)
    }
}

/// The ids of all containers of a project.
pub(super) fn list(project: &str) -> Program {
    let label = format!("label=com.docker.compose.project={project}");
    Program::new(QUESTION, ["docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", &label])
}

/// Everything about some containers, as JSON.
pub(super) fn inspect<'a>(ids: impl IntoIterator<Item = &'a str>) -> Program {
    Program::new(QUESTION, ["docker", "inspect", "--type", "container"].into_iter().chain(ids))
}

/// A container's last lines, each with its time, by which those of both streams are put in order.
pub(super) fn logs(id: &str) -> Program {
    Program::new(QUESTION, ["docker", "logs", "--timestamps", "--tail", LOG_LINES, id])
}

/// Fetches an image.
pub(super) fn pull(image: &str, timeout: Duration) -> Program {
    Program::new(timeout, ["docker", "pull", "--quiet", image])
}

/// The id of an image on this box.
pub(super) fn image_id(image: &str) -> Program {
    Program::new(QUESTION, ["docker", "image", "inspect", "--format", "{{.Id}}", image])
}

/// The images of a repository, newest first: id and tag.
pub(super) fn images(repository: &str) -> Program {
    Program::new(QUESTION, ["docker", "images", "--no-trunc", "--format", "{{.ID}} {{.Tag}}", repository])
}

/// Removes a tag, or an image by its id; with its last tag an image goes. Refused for one that a container uses.
pub(super) fn remove_image(image: &str, timeout: Duration) -> Program {
    Program::new(timeout, ["docker", "rmi", image])
}

/// Where the engine is that the other commands speak to: `DOCKER_HOST`, else that of the context in use.
pub(super) fn endpoint() -> Program {
    Program::new(QUESTION, ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"])
}

#[cfg(test)]
mod tests {
    use super::{super::vars::example, *};

    fn compose(program: &[String]) -> Compose<'_> {
        let file = Path::new("/etc/deployctl/compose/app.yml");
        Compose { program, project: "app", file, timeout: Duration::from_secs(600) }
    }

    fn line(program: &Program) -> String {
        program.argv.join(" ")
    }

    #[test]
    fn the_file_is_rendered() {
        let program = ["docker-compose".to_owned()];
        let config = compose(&program).config(example().pairs());
        assert_eq!(line(&config), "docker-compose --file /etc/deployctl/compose/app.yml --project-name app config");
        assert!(config.env.contains(&("DEPLOY_TAG".to_owned(), "v42".to_owned())));
    }

    #[test]
    fn what_was_rendered_is_started_through_standard_input() {
        let program = ["docker".to_owned(), "compose".to_owned()];
        let up = compose(&program).up("services: {}", &example(), false);
        assert_eq!(
            line(&up),
            "docker compose --file - --project-directory /etc/deployctl/compose --project-name app up --detach \
             --no-build --remove-orphans"
        );
        assert_eq!(up.stdin.as_deref(), Some("services: {}"));
        assert_eq!(up.env, example().pairs());
        let again = compose(&program).up("services: {}", &example(), true);
        assert_eq!(again.argv.last().map(String::as_str), Some("--force-recreate"));
    }

    #[test]
    fn the_engine_is_asked_for_the_rest() {
        assert_eq!(
            line(&list("app")),
            "docker ps --all --quiet --no-trunc --filter label=com.docker.compose.project=app"
        );
        assert_eq!(line(&inspect(["a", "b"])), "docker inspect --type container a b");
        assert_eq!(line(&logs("a")), "docker logs --timestamps --tail 100 a");
        assert_eq!(line(&pull("r/app:v1", QUESTION)), "docker pull --quiet r/app:v1");
        assert_eq!(line(&image_id("r/app:v1")), "docker image inspect --format {{.Id}} r/app:v1");
        assert_eq!(line(&images("r/app")), "docker images --no-trunc --format {{.ID}} {{.Tag}} r/app");
        assert_eq!(line(&remove_image("r/app:v1", QUESTION)), "docker rmi r/app:v1");
    }
}
