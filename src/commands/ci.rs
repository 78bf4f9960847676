//! What CI systems say of the commit they build: read from the variables that each sets.
//!
//! Sources: GitHub (<https://docs.github.com/actions/reference/variables-reference>), GitLab
//! (<https://docs.gitlab.com/ci/variables/predefined_variables/>), Jenkins with its Git plugin
//! (<https://plugins.jenkins.io/git/#plugin-content-environment-variables>), Buildkite
//! (<https://buildkite.com/docs/pipelines/environment-variables>), Circle CI
//! (<https://circleci.com/docs/variables/>).

use serde_json::Value;

/// What is known of a commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// Its hash.
    pub id: Option<String>,
    /// Who wrote it.
    pub author: Option<String>,
    /// What it does.
    pub message: Option<String>,
    /// The page of the CI run.
    pub link: Option<String>,
    /// When it was made, RFC 3339.
    pub at: Option<String>,
}

/// What the CI system says that this process runs under; nothing where it runs under none. `variable` looks an
/// environment variable up, `event` answers the text of GitHub's event file.
pub fn commit(variable: &dyn Fn(&str) -> Option<String>, event: &dyn Fn(&str) -> Option<String>) -> Commit {
    let first = |names: &[&str]| names.iter().find_map(|name| variable(name));
    if variable("GITHUB_ACTIONS").is_some() {
        return github(variable, variable("GITHUB_EVENT_PATH").and_then(|path| event(&path)).as_deref());
    }
    if variable("GITLAB_CI").is_some() {
        return Commit {
            id: variable("CI_COMMIT_SHA"),
            author: first(&["CI_COMMIT_AUTHOR", "GITLAB_USER_NAME"]),
            message: first(&["CI_COMMIT_MESSAGE", "CI_COMMIT_TITLE"]),
            link: first(&["CI_PIPELINE_URL", "CI_JOB_URL"]),
            at: variable("CI_COMMIT_TIMESTAMP"),
        };
    }
    if variable("BUILDKITE").is_some() {
        return Commit {
            // A build of a branch's head that has not been resolved yet has no commit.
            id: variable("BUILDKITE_COMMIT").filter(|commit| commit != "HEAD"),
            author: first(&["BUILDKITE_BUILD_AUTHOR", "BUILDKITE_BUILD_CREATOR"]),
            message: variable("BUILDKITE_MESSAGE"),
            link: variable("BUILDKITE_BUILD_URL"),
            at: None,
        };
    }
    if variable("CIRCLECI").is_some() {
        return Commit {
            id: variable("CIRCLE_SHA1"),
            author: variable("CIRCLE_USERNAME"),
            message: None,
            link: variable("CIRCLE_BUILD_URL"),
            at: None,
        };
    }
    if first(&["JENKINS_URL", "JENKINS_HOME"]).is_some() {
        return Commit {
            id: variable("GIT_COMMIT"),
            author: first(&["GIT_AUTHOR_NAME", "CHANGE_AUTHOR_DISPLAY_NAME", "CHANGE_AUTHOR"]),
            message: variable("CHANGE_TITLE"),
            link: first(&["BUILD_URL", "RUN_DISPLAY_URL"]),
            at: None,
        };
    }
    Commit::default()
}

/// GitHub's variables know neither message nor time of the commit; the event of a push does.
fn github(variable: &dyn Fn(&str) -> Option<String>, event: Option<&str>) -> Commit {
    let event: Value = event.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let head = &event["head_commit"];
    let id = variable("GITHUB_SHA");
    // The event of a tag, or of a run by hand, may tell of another commit.
    let is_ours = head["id"].as_str().is_some_and(|head| Some(head) == id.as_deref());
    let said = |text: &Value| text.as_str().filter(|_| is_ours).map(str::to_owned);
    let link = [variable("GITHUB_SERVER_URL"), variable("GITHUB_REPOSITORY"), variable("GITHUB_RUN_ID")];
    Commit {
        author: said(&head["author"]["name"]).or_else(|| variable("GITHUB_ACTOR")),
        message: said(&head["message"]),
        at: said(&head["timestamp"]),
        link: match link {
            [Some(server), Some(repository), Some(run)] => Some(format!("{server}/{repository}/actions/runs/{run}")),
            _ => None,
        },
        id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)], event: &str) -> Commit {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        commit(&variable, &|_| Some(event.to_owned()))
    }

    #[allow(clippy::unnecessary_wraps, reason = "what it is compared with is optional")]
    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_push_on_github_has_everything() {
        let variables = [
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_SHA", "c0ffee"),
            ("GITHUB_ACTOR", "ann-gh"),
            ("GITHUB_SERVER_URL", "https://github.com"),
            ("GITHUB_REPOSITORY", "o/n"),
            ("GITHUB_RUN_ID", "7"),
            ("GITHUB_EVENT_PATH", "/x"),
        ];
        let event = r#"{"head_commit": {"id": "c0ffee", "message": "Add tea", "timestamp": "2026-01-01T00:00:00+01:00",
            "author": {"name": "Ann"}}}"#;
        let expected = Commit {
            id: some("c0ffee"),
            author: some("Ann"),
            message: some("Add tea"),
            link: some("https://github.com/o/n/actions/runs/7"),
            at: some("2026-01-01T00:00:00+01:00"),
        };
        assert_eq!(read(&variables, event), expected);
        for other in [r#"{"head_commit": {"id": "beef", "message": "no"}}"#, "{}", "no json"] {
            let commit = read(&variables, other);
            assert_eq!((commit.author, commit.message), (some("ann-gh"), None), "{other}");
        }
    }

    #[test]
    fn the_others_are_known_by_their_variables() {
        let gitlab = read(
            &[
                ("GITLAB_CI", "true"),
                ("CI_COMMIT_SHA", "a1"),
                ("CI_COMMIT_AUTHOR", "Ann <a@x>"),
                ("CI_COMMIT_MESSAGE", "m"),
                ("CI_PIPELINE_URL", "https://gl/1"),
                ("CI_COMMIT_TIMESTAMP", "2026-01-01T00:00:00Z"),
            ],
            "",
        );
        assert_eq!(
            (gitlab.id, gitlab.author, gitlab.at),
            (some("a1"), some("Ann <a@x>"), some("2026-01-01T00:00:00Z"))
        );
        let jenkins = read(&[("JENKINS_URL", "https://j"), ("GIT_COMMIT", "b2"), ("BUILD_URL", "https://j/2")], "");
        assert_eq!((jenkins.id, jenkins.link), (some("b2"), some("https://j/2")));
        let buildkite = read(&[("BUILDKITE", "true"), ("BUILDKITE_COMMIT", "HEAD"), ("BUILDKITE_MESSAGE", "m")], "");
        assert_eq!((buildkite.id, buildkite.message), (None, some("m")));
        let circle = read(&[("CIRCLECI", "true"), ("CIRCLE_SHA1", "c3"), ("CIRCLE_USERNAME", "ann")], "");
        assert_eq!((circle.id, circle.author), (some("c3"), some("ann")));
        assert_eq!(read(&[("GIT_COMMIT", "b2")], ""), Commit::default(), "no CI");
    }
}
