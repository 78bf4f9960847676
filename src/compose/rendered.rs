//! A compose file with its variables filled in: what a box really runs, in one text that outlives the file.
//!
//! Two deploys of one tag differ in `DEPLOY_ID` and `DEPLOY_KIND`, and a file may pass both to its containers. Were they
//! compared, no box would ever run "the same configuration" and every repeated deploy would restart containers for
//! nothing. So the file is rendered with a stand-in for each; what is compared still has the stand-ins, what is started
//! has the values.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use yaml_rust2::{Yaml, YamlLoader};

use super::{mask::Mask, mounts, vars::DeployVars};

/// What the file is rendered with instead of `DEPLOY_ID`. YAML needs no quotes for it, nor for an id.
pub(super) const ID: &str = "deployctl.stands.for.the.id";
/// What the file is rendered with instead of `DEPLOY_KIND`.
pub(super) const KIND: &str = "deployctl.stands.for.the.kind";

/// The rendered configuration of one role. It contains secrets: keep it in files of mode 0600.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendered {
    vars: DeployVars,
    template: String,
    image: String,
    other_images: Vec<String>,
    /// Those of them that are fetched even if they are here. Empty in what was kept before this was known.
    #[serde(default)]
    always_pulled: BTreeSet<String>,
    environment: Vec<String>,
    /// How many containers each service has. Empty in what was kept before this was known.
    #[serde(default)]
    counts: BTreeMap<String, u64>,
    /// What it mounts of the box's files and folders. Empty in what was kept before this was known.
    #[serde(default)]
    mounted: BTreeSet<PathBuf>,
}

impl Rendered {
    /// Reads what compose printed when it was given the stand-ins. `service` is the one that is watched, `profiles` those
    /// that are switched on: version 1 of compose prints the services of all the others, too, and starts none of them.
    pub(super) fn parse(vars: DeployVars, template: String, service: &str, profiles: &[String]) -> Result<Self> {
        let documents = YamlLoader::load_from_str(&template).context("compose rendered something that is not YAML")?;
        let document = documents.first().unwrap_or(&Yaml::BadValue);
        let all_are_on = is_of_version_2(document);
        let services: Vec<(&str, &Yaml)> = document["services"]
            .as_hash()
            .into_iter()
            .flatten()
            .filter_map(|(name, service)| Some((name.as_str()?, service)))
            .filter(|(_, service)| all_are_on || is_on(service, profiles))
            .collect();
        let Some((_, watched)) = services.iter().find(|(name, _)| *name == service) else {
            let names: Vec<&str> = services.iter().map(|(name, _)| *name).collect();
            bail!(
                "it has no service {service}, but {}: name the one to watch with compose_service",
                if names.is_empty() { "none at all".to_owned() } else { names.join(", ") }
            );
        };
        let image = watched["image"].as_str().unwrap_or_default().to_owned();
        check_image(&image, service)?;
        if let Some((name, _)) = services.iter().find(|(_, service)| service["image"].as_str().is_none()) {
            bail!("its service {name} has no image, and nothing is built on a box: give it an `image`");
        }
        let mut other_images: Vec<String> =
            services.iter().filter_map(|(_, service)| service["image"].as_str().map(str::to_owned)).collect();
        other_images.sort_unstable();
        other_images.dedup();
        other_images.retain(|other| *other != image);
        let follows = |image: &str, service: &Yaml| {
            reference(image) == vars.tag.as_str() || service["pull_policy"].as_str() == Some("always")
        };
        let always_pulled = services
            .iter()
            .filter_map(|(_, service)| service["image"].as_str().filter(|image| follows(image, service)))
            .map(str::to_owned)
            .collect();
        let environment = services.iter().flat_map(|(_, service)| values(&service["environment"])).collect();
        let counts = services.iter().map(|(name, service)| ((*name).to_owned(), count(service))).collect();
        let mounted = mounts::mounted(document, &services);
        Ok(Self { vars, template, image, other_images, always_pulled, environment, counts, mounted })
    }

    /// Whether the image is named after the tag. Where it is not, only rendering with another tag can tell whether the tag
    /// decides which image it is.
    pub(super) fn is_named_after_tag(&self) -> bool {
        reference(&self.image) == self.vars.tag.as_str()
    }

    /// Refuses a file that names the same image for another tag: a box would say one thing and run another.
    pub(super) fn check_differs_from(&self, other: &Self) -> Result<()> {
        let pinned = |image: &str| image.contains('@').then(|| reference(image).to_owned());
        let same = match (pinned(&self.image), pinned(&other.image)) {
            (Some(one), Some(another)) => one == another,
            _ => self.image == other.image,
        };
        if same {
            bail!("the image of its watched service is {} whatever the tag is: {ADVICE}", self.image);
        }
        Ok(())
    }

    /// Whether version 2 of compose rendered it: only that says the project's name.
    pub(super) fn is_by_version_2(&self) -> bool {
        YamlLoader::load_from_str(&self.template).is_ok_and(|documents| documents.first().is_some_and(is_of_version_2))
    }

    /// How many containers each service has.
    pub(super) fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    /// Forgets the mounted files and folders that cannot be seen from here: a unit's `/tmp` is not the engine's.
    pub(super) fn seen(mut self) -> Self {
        self.mounted.retain(|path| path.exists());
        self
    }

    /// The first of the mounted files and folders that was there when it was rendered, and is gone.
    pub(super) fn lost(&self) -> Option<&PathBuf> {
        self.mounted.iter().find(|path| path.try_exists().is_ok_and(|there| !there))
    }

    /// What is started, as YAML.
    #[must_use]
    pub fn text(&self) -> String {
        self.template.replace(ID, &self.vars.id).replace(KIND, self.vars.kind.as_str())
    }

    /// The variables it was rendered with.
    #[must_use]
    pub fn vars(&self) -> &DeployVars {
        &self.vars
    }

    /// The watched service's image, with its tag.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.image
    }

    /// The images of the other services.
    #[must_use]
    pub fn other_images(&self) -> &[String] {
        &self.other_images
    }

    /// Whether `image` is fetched even if it is here: it bears the deploy's own tag, which may have moved with the release,
    /// or its `pull_policy` is `always`.
    pub(super) fn is_always_pulled(&self, image: &str) -> bool {
        image == self.image || self.always_pulled.contains(image)
    }

    /// Whether both start the same containers, but for the id and the kind of the deploy.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.template == other.template
    }

    /// Hides the values of the file's `environment` sections, except those that say which deploy this is.
    pub(super) fn mask(&self) -> Mask {
        let shown: Vec<String> = self.vars.pairs().into_iter().map(|(_, value)| value).collect();
        Mask::new(
            self.environment.iter().filter(|value| ![ID, KIND].contains(&value.as_str()) && !shown.contains(value)),
        )
    }
}

impl std::fmt::Debug for Rendered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rendered").field("vars", &self.vars).field("image", &self.image).finish_non_exhaustive()
    }
}

const ADVICE: &str = "write `image: REGISTRY/IMAGE:${DEPLOY_TAG:?}`";

fn check_image(image: &str, service: &str) -> Result<()> {
    if image.is_empty() {
        bail!("its service {service} has no image: {ADVICE}");
    }
    if image.ends_with(':') {
        bail!("the image of its service {service} is {image} without a tag, so a variable in it is not set: {ADVICE}");
    }
    Ok(())
}

/// What says which image of a repository it is: the digest, else the tag, else nothing.
fn reference(image: &str) -> &str {
    if let Some((_, digest)) = image.split_once('@') {
        return digest;
    }
    // A colon in front of a slash is a registry's port.
    image.rsplit('/').next().and_then(|name| name.split_once(':')).map_or("", |(_, tag)| tag)
}

/// Version 2 of compose says the project's name, and leaves out the services of profiles that are off.
fn is_of_version_2(document: &Yaml) -> bool {
    document["name"].as_str().is_some()
}

fn is_on(service: &Yaml, profiles: &[String]) -> bool {
    match service["profiles"].as_vec() {
        None => true,
        Some(own) if own.is_empty() => true,
        Some(own) => own.iter().filter_map(Yaml::as_str).any(|name| profiles.iter().any(|on| on == name || on == "*")),
    }
}

/// `scale`, else `deploy.replicas`, else one.
fn count(service: &Yaml) -> u64 {
    let number = |value: &Yaml| value.as_i64().and_then(|number| u64::try_from(number).ok());
    number(&service["scale"]).or_else(|| number(&service["deploy"]["replicas"])).unwrap_or(1)
}

/// The values of an `environment` section, as the container sees them.
fn values(environment: &Yaml) -> Vec<String> {
    let scalar = |value: &Yaml| match value {
        Yaml::String(text) | Yaml::Real(text) => Some(text.replace("$$", "$")),
        Yaml::Integer(number) => Some(number.to_string()),
        _ => None,
    };
    match environment {
        Yaml::Hash(entries) => entries.values().filter_map(scalar).collect(),
        Yaml::Array(entries) => entries
            .iter()
            .filter_map(scalar)
            .filter_map(|entry| entry.split_once('=').map(|(_, value)| value.to_owned()))
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::vars::example, *};
    use crate::api::Kind;

    const VERSION_1: &str = "services:
  app:
    environment:
      DATABASE_URL: postgres://app:pa$$word@db/app
      DEPLOY_ID: deployctl.stands.for.the.id
      PORT: 8080
      UNSET: null
      WORDS: a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i
        j k l m
    image: registry.internal/app:v42
  side:
    command:
    - sleep
    image: redis:6
version: '3.8'
";

    fn rendered(template: &str) -> Result<Rendered> {
        Rendered::parse(example(), template.to_owned(), "app", &[])
    }

    #[test]
    fn the_watched_image_and_the_others_are_found() {
        let rendered = rendered(VERSION_1).unwrap();
        assert_eq!(rendered.image(), "registry.internal/app:v42");
        assert_eq!(rendered.other_images(), ["redis:6"]);
    }

    #[test]
    fn the_id_is_filled_in_but_not_compared() {
        let one = rendered(VERSION_1).unwrap();
        let vars = DeployVars { id: "app.production.other".to_owned(), kind: Kind::Rollback, ..example() };
        let other = Rendered::parse(vars, VERSION_1.to_owned(), "app", &[]).unwrap();
        assert!(one.text().contains("DEPLOY_ID: app.production.k3x9\n"), "{}", one.text());
        assert!(one.is_same_as(&other));
        assert!(!one.is_same_as(&rendered(&VERSION_1.replace("8080", "8081")).unwrap()));
    }

    #[test]
    fn it_survives_being_kept() {
        let rendered = rendered(VERSION_1).unwrap();
        let kept = serde_json::to_string(&rendered).unwrap();
        assert_eq!(serde_json::from_str::<Rendered>(&kept).unwrap(), rendered);
        assert!(!format!("{rendered:?}").contains("pa$"));
    }

    #[test]
    fn values_are_those_that_the_container_sees() {
        let rendered = rendered(VERSION_1).unwrap();
        assert!(rendered.environment.contains(&"postgres://app:pa$word@db/app".to_owned()));
        assert!(rendered.environment.iter().any(|value| value.ends_with("h i j k l m")), "{:?}", rendered.environment);
    }

    #[test]
    fn a_file_that_cannot_be_watched_is_refused() {
        let error = |template: &str| format!("{:#}", rendered(template).unwrap_err());
        let missing = error("services:\n  web: {image: 'x:v42'}\n  side: {image: y}\n");
        assert!(missing.contains("no service app") && missing.contains("web, side"), "{missing}");
        assert!(missing.contains("compose_service"), "{missing}");
        assert!(error("services: {}").contains("none at all"));
        assert!(error("services:\n  app:\n    image: 'x/app:'\n").contains("${DEPLOY_TAG:?}"));
        let side = error("services:\n  app: {image: 'x:v42'}\n  side: {build: .}\n");
        assert!(side.contains("service side has no image"), "{side}");
        assert!(error("services:\n  app:\n    build: .\n").contains("has no image"));
        assert!(error("a: [").contains("not YAML"));
    }

    #[test]
    fn the_tag_itself_is_compared() {
        let of = |image: &str, tag: &str| {
            let vars = DeployVars { tag: tag.parse().unwrap(), ..example() };
            Rendered::parse(vars, format!("services:\n  app:\n    image: {image}\n"), "app", &[]).unwrap()
        };
        assert!(of("r:5000/app:12", "12").is_named_after_tag());
        for image in ["127.0.0.1:47312/app:v1", "12/app", "app12:latest", "app:v12", "app:12@sha256:12"] {
            assert!(!of(image, "12").is_named_after_tag(), "{image}");
        }
        let differs = |one: &str, other: &str| of(one, "12").check_differs_from(&of(other, "13"));
        assert!(differs("app:12-slim", "app:13-slim").is_ok());
        assert!(differs("app:v1", "app:v1").unwrap_err().to_string().contains("app:v1 whatever the tag is"));
        assert!(differs("app:12@sha256:1", "app:13@sha256:1").is_err());
    }

    #[test]
    fn what_moves_with_the_release_is_fetched_even_if_it_is_here() {
        let text = "services:\n  app: {image: 'x:v42'}\n  migrate: {image: 'r:5000/migrate:v42'}\n  cache: {image: 'redis:6'}\n  \
                    proxy: {image: 'proxy:stable', pull_policy: always}\n";
        let rendered = rendered(text).unwrap();
        let always: Vec<bool> = rendered.other_images().iter().map(|image| rendered.is_always_pulled(image)).collect();
        assert_eq!(rendered.other_images(), ["proxy:stable", "r:5000/migrate:v42", "redis:6"]);
        assert_eq!(always, [true, true, false]);
    }

    #[test]
    fn containers_are_counted_and_profiles_that_are_off_are_not() {
        let text = "services:\n  app: {image: 'x:v42', deploy: {replicas: 2}}\n  side: {image: y, scale: 0}\n  \
                    debug: {profiles: [tools], build: .}\n";
        let counts = |rendered: &Rendered| format!("{:?}", rendered.counts());
        let off = rendered(text).unwrap();
        assert_eq!(counts(&off), r#"{"app": 2, "side": 0}"#);
        assert_eq!(off.other_images(), ["y"]);
        let on = Rendered::parse(example(), text.replace("build: .", "image: z"), "app", &["tools".to_owned()]);
        assert_eq!(counts(&on.unwrap()), r#"{"app": 2, "debug": 1, "side": 0}"#);
    }
}
