//! The argument lists for compose and Docker: what is run, apart from running it.
//!
//! Compose is only asked to render and to start; both versions agree on these words. Everything else is asked of the
//! engine itself ([`super::engine`]), but for a pull, which needs the credential helpers of `docker`.

use std::{path::Path, time::Duration};

use super::vars::DeployVars;
use crate::process::Program;

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

/// Fetches an image.
pub(super) fn pull(image: &str, timeout: Duration) -> Program {
    Program::new(timeout, ["docker", "pull", "--quiet", image])
}

/// Asks the registry for an image's list of platforms, with the credentials of `docker`.
pub(super) fn platforms(image: &str, timeout: Duration) -> Program {
    Program::new(timeout, ["docker", "manifest", "inspect", image])
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
    fn a_pull_prints_no_progress() {
        assert_eq!(line(&pull("r/app:v1", Duration::from_secs(20))), "docker pull --quiet r/app:v1");
        assert_eq!(line(&platforms("r/app:v1", Duration::from_secs(20))), "docker manifest inspect r/app:v1");
    }
}
