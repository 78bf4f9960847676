//! The files that a compose file is rendered from, to find out cheaply whether rendering it again would change anything:
//! `compose config` takes a second, and a box that has its lock keeps others waiting.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use yaml_rust2::{Yaml, YamlLoader};

/// More files than this are somebody's mistake.
const MOST_FILES: usize = 100;

/// What the files held: a digest each, none for one that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs(BTreeMap<PathBuf, Option<[u8; 32]>>);

impl Inputs {
    /// Of `file`: itself, the `.env` beside it, and what they name under `env_file`, `extends` and `include`. None where
    /// that cannot be told without rendering: a name with a variable in it, a file that is no YAML.
    pub(super) fn of(file: &Path) -> Option<Self> {
        let mut found = BTreeMap::new();
        let mut open = vec![file.to_owned()];
        while let Some(file) = open.pop() {
            let text = read(&file).ok()?;
            found.insert(file.clone(), text.as_deref().map(digest));
            let folder = file.parent().unwrap_or(Path::new("/"));
            let named = match &text {
                Some(text) => named(std::str::from_utf8(text).ok()?)?,
                None => Named::default(),
            };
            for name in named.values.iter().map(String::as_str).chain([".env"]) {
                let path = folder.join(name);
                let held = read(&path).ok()?;
                found.insert(path, held.as_deref().map(digest));
            }
            open.extend(named.files.iter().map(|name| folder.join(name)).filter(|path| !found.contains_key(path)));
            if found.len() > MOST_FILES {
                return None;
            }
        }
        Some(Self(found))
    }
}

/// None where it is not there.
fn read(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    /// Compose files: they name others in turn.
    files: Vec<String>,
    /// Files of variables.
    values: Vec<String>,
}

fn named(text: &str) -> Option<Named> {
    let documents = YamlLoader::load_from_str(text).ok()?;
    let mut named = Named::default();
    for document in &documents {
        for service in document["services"].as_hash().into_iter().flatten().map(|(_, service)| service) {
            paths(&service["env_file"], &mut named.values)?;
            paths(&service["extends"]["file"], &mut named.files)?;
        }
        let include = &document["include"];
        for entry in include.as_vec().map_or(std::slice::from_ref(include), Vec::as_slice) {
            paths(if entry.as_hash().is_some() { &entry["path"] } else { entry }, &mut named.files)?;
            paths(&entry["env_file"], &mut named.values)?;
            // It moves what the included file's own names are relative to.
            if !entry["project_directory"].is_badvalue() {
                return None;
            }
        }
    }
    Some(named)
}

/// A path, a list of them, or a list of `{path: …}`.
fn paths(value: &Yaml, into: &mut Vec<String>) -> Option<()> {
    match value {
        Yaml::BadValue | Yaml::Null => Some(()),
        Yaml::String(path) if !path.contains('$') => {
            into.push(path.clone());
            Some(())
        }
        Yaml::Array(entries) => entries.iter().try_for_each(|entry| paths(entry, into)),
        Yaml::Hash(_) => paths(&value["path"], into),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_that_a_file_names_are_found() {
        let text = "include: [common.yml, {path: [a.yml, b.yml], env_file: c.env}]\nservices:\n  app:\n    env_file: [app.env, {path: more.env, required: false}]\n    extends: {file: base.yml, service: app}\n  side: {env_file: side.env}\n";
        let named = named(text).unwrap();
        assert_eq!(named.files, ["base.yml", "common.yml", "a.yml", "b.yml"]);
        assert_eq!(named.values, ["app.env", "more.env", "side.env", "c.env"]);
    }

    #[test]
    fn what_only_rendering_can_tell_is_not_guessed() {
        assert_eq!(named("services: {app: {env_file: '${STAGE}.env'}}"), None);
        assert_eq!(named("include: [{path: a.yml, project_directory: ..}]"), None);
        assert_eq!(named("a: ["), None);
    }

    #[test]
    fn a_change_of_any_of_them_shows() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write("app.yml", "services: {app: {env_file: app.env, extends: {file: base.yml, service: app}}}");
        write("base.yml", "services: {app: {env_file: base.env}}");
        let file = folder.join("app.yml");
        let mut last = Inputs::of(&file).unwrap();
        assert_eq!(Inputs::of(&file).unwrap(), last);
        for name in ["app.env", "base.env", ".env", "base.yml"] {
            write(name, "services: {app: {env_file: base.env}} # changed");
            let now = Inputs::of(&file).unwrap();
            assert_ne!(now, last, "{name}");
            last = now;
        }
    }
}
