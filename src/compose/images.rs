//! Images on a box: fetching them, knowing them, removing those that nobody goes back to.

use std::{
    collections::BTreeMap,
    iter,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use log::info;
use serde_json::Value;

use super::{
    ImageId, Project, Rendered, commands,
    engine::{Engine, EngineError, Image},
};
use crate::{
    process::{self, Failure},
    retry::retrying_slowly,
    sleep::sleep,
};

/// Between the two questions about a tag that the registry says it does not know.
const SECOND_QUESTION: Duration = Duration::from_secs(2);
/// How long a registry may take to show an image's list.
const LIST: Duration = Duration::from_secs(20);

/// Why an image could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum PullFailure {
    /// The registry, asked twice, does not know the tag: the release is at fault. One line.
    #[error("{0}")]
    UnknownTag(String),
    /// Anything else: the image is for other platforms, the registry is down, a login has expired, the disk is full, the caller was interrupted.
    #[error("{0:#}")]
    Other(anyhow::Error),
}

impl Project {
    /// Fetches the watched service's image, even if it is here: its tag may stand for another one by now. The same goes
    /// for other services' images with the deploy's tag, or with `pull_policy: always`. Of the rest fetches what is
    /// missing. What fails is tried again, with backoff, for `patience`.
    pub fn pull(
        &self,
        rendered: &Rendered,
        patience: Duration,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<(), PullFailure> {
        let deadline = Instant::now() + patience;
        pull_one(&self.engine, rendered.image(), deadline, interrupted)?;
        for image in rendered.other_images() {
            if rendered.is_always_pulled(image) || self.image_present(image).map_err(PullFailure::Other)?.is_none() {
                // Unknown or not: this is no proof against the release.
                pull_one(&self.engine, image, deadline, interrupted)
                    .map_err(|failure| PullFailure::Other(anyhow!("{failure}")))?;
            }
        }
        Ok(())
    }

    /// Fetches those of `rendered`'s images that are not here any more, and no other: the last resort of a box whose old
    /// images somebody removed.
    pub fn pull_missing(&self, rendered: &Rendered, patience: Duration) -> Result<(), PullFailure> {
        let deadline = Instant::now() + patience;
        for image in names(rendered) {
            if self.image_present(image).map_err(PullFailure::Other)?.is_none() {
                pull_one(&self.engine, image, deadline, &process::never)?;
            }
        }
        Ok(())
    }

    /// An image of `rendered` that is not on this box.
    pub fn first_missing<'a>(&self, rendered: &'a Rendered) -> Result<Option<&'a str>> {
        for image in names(rendered) {
            if self.image_present(image)?.is_none() {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    /// What `image` stands for on this box; none when it is not here.
    pub fn image_present(&self, image: &str) -> Result<Option<ImageId>> {
        self.engine.image(image).with_context(|| format!("cannot look for the image {image}"))
    }

    /// What each of `rendered`'s images stands for on this box. One that is not here is left out.
    pub fn images_of(&self, rendered: &Rendered) -> Result<BTreeMap<String, ImageId>> {
        let known = names(rendered).map(|name| Ok(self.image_present(name)?.map(|id| (name.to_owned(), id))));
        known.filter_map(Result::transpose).collect()
    }

    /// Makes the image's name stand for `id` again, where its tag has moved since.
    pub fn restore_image(&self, name: &str, id: &ImageId) -> Result<()> {
        if name.contains('@') || self.image_present(name)?.as_ref() == Some(id) {
            return Ok(());
        }
        let repository = repository(name);
        let tag = name.strip_prefix(repository).and_then(|rest| rest.strip_prefix(':')).unwrap_or("latest");
        self.engine.tag_image(id, repository, tag).with_context(|| format!("cannot make {name} stand for {id} again"))
    }

    /// Removes what `rendered`'s repository has on this box besides its `keep` newest images and those in `keep_ids`.
    /// An image that any container uses stays.
    pub fn prune(&self, rendered: &Rendered, keep: usize, keep_ids: &[ImageId]) -> Result<()> {
        let repository = repository(rendered.image());
        let images =
            self.engine.images(repository).with_context(|| format!("cannot list the images of {repository}"))?;
        let mut failed = Ok(());
        for image in superfluous(&images, keep, keep_ids) {
            match self.engine.remove_image(image) {
                Ok(()) => info!("removed the old image {image}"),
                Err(EngineError::InUse(_) | EngineError::Missing(_)) => {}
                Err(error) => failed = Err(error).with_context(|| format!("cannot remove the old image {image}")),
            }
        }
        failed
    }
}

/// The names of all images that `rendered` starts.
fn names(rendered: &Rendered) -> impl Iterator<Item = &str> {
    iter::once(rendered.image()).chain(rendered.other_images().iter().map(String::as_str))
}

fn pull_one(
    engine: &Engine,
    image: &str,
    deadline: Instant,
    interrupted: &dyn Fn() -> bool,
) -> Result<(), PullFailure> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let ask = || process::run(&commands::pull(image, left()), interrupted);
    let ask_twice = || match ask() {
        Err(failure) if is_unknown_tag(&failure) && sleep(SECOND_QUESTION, interrupted) => ask(),
        answer => answer,
    };
    let is_transient = |failure: &Failure| {
        let is_final = matches!(failure, Failure::NotFound { .. } | Failure::Interrupted { .. });
        !is_final && !is_unknown_tag(failure) && missing_platform(failure).is_none()
    };
    let Err(failure) = retrying_slowly(left(), interrupted, is_transient, ask_twice) else { return Ok(()) };
    if let Some(wanted) = missing_platform(&failure) {
        return Err(PullFailure::Other(no_platform(engine, image, &wanted, left(), interrupted)));
    }
    // When interrupted it may have been asked once only.
    if is_unknown_tag(&failure) && !interrupted() {
        return Err(PullFailure::UnknownTag(format!("the registry does not know {image}: manifest unknown")));
    }
    let text = format!("cannot fetch {image}: see that its registry answers and that this box is logged in there");
    Err(PullFailure::Other(anyhow::Error::new(failure).context(text)))
}

/// Whether the registry itself said that it has no such tag. An expired login, a missing repository and a proxy that
/// cannot reach the registry say other things, and prove nothing.
fn is_unknown_tag(failure: &Failure) -> bool {
    matches!(failure, Failure::Exit { .. }) && failure.stderr().contains("manifest unknown")
}

/// The platform that the image's list lacks, where that is what the engine says: no patience changes it.
fn missing_platform(failure: &Failure) -> Option<String> {
    let Failure::Exit { .. } = failure else { return None };
    let words = failure.stderr();
    if let Some((_, rest)) = words.split_once("no matching manifest for ") {
        return rest.split_whitespace().next().map(str::to_owned);
    }
    words.contains("no match for platform in manifest").then(|| "this box's platform".to_owned())
}

/// The error for an image whose list lacks the platform `wanted`, with those it has if the registry tells them.
/// The engine knows its insecure registries, and `docker` the logins.
fn no_platform(
    engine: &Engine,
    image: &str,
    wanted: &str,
    left: Duration,
    interrupted: &dyn Fn() -> bool,
) -> anyhow::Error {
    let mut there = engine.platforms(image).map(|list| platforms(&list)).unwrap_or_default();
    if there.is_empty() {
        let answer = process::run(&commands::platforms(image, left.min(LIST)), interrupted);
        let list = answer.map(|output| serde_json::from_str::<Value>(&output.stdout).unwrap_or_default());
        there = list.map(|list| platforms(&list["manifests"])).unwrap_or_default();
    }
    if there.is_empty() {
        return anyhow!("{image} has no image for {wanted}: build one for it");
    }
    anyhow!("{image} has no image for {wanted}, has: {}", there.join(", "))
}

/// The platforms of an image list, `OS/ARCHITECTURE[/VARIANT]` each. Attestations are of the platform `unknown`.
fn platforms(list: &Value) -> Vec<String> {
    let words = |entry: &Value| {
        let platform = entry.get("platform").unwrap_or(entry);
        let word = |name: &str| platform[name].as_str().filter(|word| !word.is_empty()).map(str::to_owned);
        let words = [Some(word("os")?), Some(word("architecture")?), word("variant")];
        Some(words.into_iter().flatten().collect::<Vec<_>>().join("/"))
    };
    let mut there: Vec<String> = list.as_array().into_iter().flatten().filter_map(words).collect();
    there.retain(|platform| !platform.starts_with("unknown/"));
    there.sort_unstable();
    there.dedup();
    there
}

/// The image without its tag and digest: a colon in front of a slash is a registry's port.
fn repository(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => image,
    }
}

/// What to remove of a repository's images, newest first: tags by name, images that lost theirs by id.
fn superfluous<'a>(images: &'a [Image], keep: usize, keep_ids: &[ImageId]) -> Vec<&'a str> {
    images
        .iter()
        .skip(keep)
        .filter(|image| !keep_ids.contains(&image.id))
        .flat_map(|image| match image.tags.as_slice() {
            [] => vec![image.id.0.as_str()],
            tags => tags.iter().map(String::as_str).collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Output;

    fn failed(stderr: &str) -> Failure {
        let output = Output { stderr: stderr.to_owned(), ..Output::default() };
        Failure::Exit { command: "docker pull".to_owned(), code: Some(1), signal: None, output }
    }

    #[test]
    fn only_manifest_unknown_means_an_unknown_tag() {
        assert!(is_unknown_tag(&failed(
            "Error response from daemon: manifest for r:5000/app:v9 not found: manifest unknown: manifest unknown"
        )));
        assert!(is_unknown_tag(&failed("manifest unknown: Requested image not found")));
        for words in [
            "Error response from daemon: pull access denied for app, repository does not exist or may require 'docker login': denied",
            "Error response from daemon: Get \"https://1.dkr.ecr.eu-west-1.amazonaws.com/v2/\": no basic auth credentials",
            "Error response from daemon: Head \"https://r/v2/app/manifests/v9\": unauthorized: Your authorization token has expired",
            "Error response from daemon: failed to resolve reference \"r/app:v9\": r/app:v9: not found",
            "Error response from daemon: name unknown: repository app not found",
            "Error response from daemon: Get \"http://r:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
            "toomanyrequests: You have reached your pull rate limit",
        ] {
            assert!(!is_unknown_tag(&failed(words)), "{words}");
        }
    }

    #[test]
    fn a_missing_platform_is_named_and_so_are_those_that_are_there() {
        let words = "no matching manifest for linux/arm64/v8 in the manifest list entries\n";
        assert_eq!(missing_platform(&failed(words)).as_deref(), Some("linux/arm64/v8"));
        let words = "no match for platform in manifest sha256:1: not found";
        assert_eq!(missing_platform(&failed(words)).as_deref(), Some("this box's platform"));
        assert_eq!(missing_platform(&failed("manifest unknown")), None);
        let list = serde_json::json!([
            {"platform": {"architecture": "arm64", "os": "linux", "variant": "v8"}},
            {"platform": {"architecture": "unknown", "os": "unknown"}},
            {"architecture": "amd64", "os": "linux", "variant": ""}
        ]);
        assert_eq!(platforms(&list), ["linux/amd64", "linux/arm64/v8"]);
        assert!(platforms(&Value::Null).is_empty());
    }

    #[test]
    fn a_repository_may_have_a_port() {
        for (image, expected) in [
            ("app", "app"),
            ("app:v1", "app"),
            ("r.internal:5000/app", "r.internal:5000/app"),
            ("r.internal:5000/team/app:v1", "r.internal:5000/team/app"),
            ("r/app:v1@sha256:0fa0", "r/app"),
        ] {
            assert_eq!(repository(image), expected);
        }
    }

    #[test]
    fn the_newest_and_the_named_stay() {
        let image = |id: &str, tags: &[&str]| Image {
            id: ImageId(id.to_owned()),
            tags: tags.iter().map(|tag| format!("r/app:{tag}")).collect(),
            created: 0,
        };
        let list = [
            image("5", &["v5"]),
            image("4", &["v4", "latest"]),
            image("3", &["v3"]),
            image("2", &[]),
            image("1", &["v1"]),
        ];
        let keep_ids = [ImageId("3".to_owned())];
        assert_eq!(superfluous(&list, 2, &keep_ids), ["2", "r/app:v1"]);
        assert_eq!(superfluous(&list, 1, &keep_ids), ["r/app:v4", "r/app:latest", "2", "r/app:v1"]);
        assert_eq!(superfluous(&[], 2, &keep_ids), Vec::<&str>::new());
        let other = [ImageId("1".to_owned())];
        assert!(!superfluous(&list, 0, &other).contains(&"r/app:v1"));
    }
}
