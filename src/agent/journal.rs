//! What a box remembers of a role across crashes: the release that last worked, the work that was interrupted, and
//! whether a person keeps the box out. One file, written whole, so that it is always one of its states.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{
    api::Kind,
    compose::{ImageId, Rendered, RunBy},
    config::{Health, LoadBalancer},
    names::{Role, Tag},
};

/// A release that was healthy on this box.
#[derive(Clone, Serialize, Deserialize)]
pub struct Good {
    /// Its tag.
    pub tag: Tag,
    /// The id of the deploy that brought it.
    pub deploy: String,
    /// The kind of that deploy.
    pub kind: Kind,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// What ran: enough to go back to it, whatever the compose file says by then.
    pub rendered: Rendered,
    /// What its images' names stood for. Empty in what was kept before this was remembered.
    #[serde(default)]
    pub images: BTreeMap<String, ImageId>,
    /// How it was run, whatever the configuration says by then. Unknown in what was kept before this was remembered.
    #[serde(default)]
    pub setup: Option<Setup>,
}

/// The configuration that a release worked with.
#[derive(Clone, Serialize, Deserialize)]
pub struct Setup {
    /// Its compose program, project and watched service.
    pub run_by: RunBy,
    /// Its health check.
    pub health: Health,
    /// Its `verify` program and arguments; empty without one.
    pub verify: Vec<String>,
    /// The load balancers that sent requests to it.
    #[serde(default)]
    pub load_balancers: Vec<LoadBalancer>,
}

/// Work that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The id of the deploy.
    pub deploy: String,
    /// The tag that is brought.
    pub tag: Tag,
    /// Containers may have been changed.
    pub started: bool,
    /// What the box is out for, where that is no deploy: a person's command, a reboot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
}

/// What the journal of one role holds.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RoleState {
    /// The release that last worked. Only another that works replaces it: resuming never does.
    pub good: Option<Good>,
    /// The release that worked before that one.
    pub before: Option<Good>,
    /// The work that took the box out of service, until the box is back.
    pub work: Option<Work>,
    /// Why a person keeps the box out.
    pub kept_out: Option<String>,
}

/// The journal of one role.
pub struct Journal {
    folder: PathBuf,
    role: Role,
    state: RoleState,
}

impl Journal {
    /// Reads the journal of `role`; an absent one is empty.
    pub fn open(state_dir: &Path, role: &Role) -> Result<Self> {
        let state = read(&state_dir.join(format!("{role}.json")))?;
        Ok(Self { folder: state_dir.to_path_buf(), role: role.clone(), state })
    }

    /// A journal that remembers nothing, for a box whose own cannot be read. It is not to be changed.
    #[must_use]
    pub fn empty(state_dir: &Path, role: &Role) -> Self {
        Self { folder: state_dir.to_path_buf(), role: role.clone(), state: RoleState::default() }
    }

    /// Its contents.
    #[must_use]
    pub fn state(&self) -> &RoleState {
        &self.state
    }

    /// The releases that the journal of any role on this box names: what a role may have to go back to. Two roles may
    /// share a repository.
    pub fn good_on_this_box(&self) -> Result<Vec<Good>> {
        let unreadable = || format!("cannot read {}; see state_dir", self.folder.display());
        // Its own file may be older: it could not be written.
        let mut good: Vec<Good> = [&self.state.good, &self.state.before].into_iter().flatten().cloned().collect();
        for entry in fs::read_dir(&self.folder).with_context(unreadable)? {
            let path = entry.with_context(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let state = read(&path)?;
                good.extend([state.good, state.before].into_iter().flatten());
            }
        }
        Ok(good)
    }

    /// Changes it, durably.
    pub fn update(&mut self, change: impl FnOnce(&mut RoleState)) -> Result<()> {
        change(&mut self.state);
        let text = serde_json::to_vec_pretty(&self.state).context("the journal")?;
        self.write("json", &text)
    }

    /// Remembers that `good` works, and leaves the files for people: the variables in force, and what was rendered.
    pub fn remember(&mut self, good: Good) -> Result<()> {
        let rendered = good.rendered.clone();
        let variables: Vec<String> =
            rendered.vars().pairs().iter().map(|(name, value)| format!("{name}={value}")).collect();
        // First the journal itself, in memory too: the others are for people.
        self.update(|state| {
            let old = state.good.replace(good);
            let same = old.as_ref().map(|old| &old.tag) == state.good.as_ref().map(|good| &good.tag);
            if !same {
                state.before = old;
            }
            state.work = None;
        })?;
        self.write("env", format!("{}\n", variables.join("\n")).as_bytes())?;
        self.write("yml", rendered.text().as_bytes())
    }

    /// Mode 0600: rendered configurations hold what the services need to know.
    fn write(&self, extension: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(format!("{}.{extension}", self.role));
        let draft = self.folder.join(format!("{}.{extension}.new", self.role));
        let write = || -> io::Result<()> {
            fs::create_dir_all(&self.folder)?;
            let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}; see state_dir", path.display()))
    }
}

/// Reads a journal; an absent one is empty.
fn read(path: &Path) -> Result<RoleState> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged: move it away, then run `deployctl run`", path.display())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(RoleState::default()),
        Err(e) => Err(e).with_context(|| format!("cannot read {}; see state_dir", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_any_role_may_go_back_to_is_known_or_nothing_is() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let good = |role: &str, tag: &str| {
            let vars = json!({ "tag": tag, "role": role, "environment": "staging", "id": "x", "kind": "deploy" });
            let image = format!("registry:5000/shared:{tag}");
            // As it was kept before containers were counted.
            let rendered = json!({
                "vars": vars, "template": "", "image": image, "other_images": [], "environment": [],
            });
            json!({ "tag": tag, "deploy": "x", "kind": "deploy", "at": 1, "rendered": rendered })
        };
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write("app.json", &json!({ "good": good("app", "v3"), "before": good("app", "v2") }).to_string());
        write("worker.json", &json!({ "good": good("worker", "v1") }).to_string());
        write("app.yml", "services: {}");
        let journal = Journal::open(folder, &"app".parse().unwrap()).unwrap();
        let mut images: Vec<String> =
            journal.good_on_this_box().unwrap().iter().map(|good| good.rendered.image().to_owned()).collect();
        images.sort_unstable();
        images.dedup();
        assert_eq!(images, ["v1", "v2", "v3"].map(|tag| format!("registry:5000/shared:{tag}")));

        write("app.json", &json!({ "good": good("app", "v2") }).to_string());
        let named = journal.good_on_this_box().unwrap();
        assert!(named.iter().any(|good| good.tag.as_str() == "v3"), "what runs is named only in memory");

        write("worker.json", "{");
        let Err(error) = journal.good_on_this_box() else { panic!("a damaged journal names nothing") };
        assert!(format!("{error:#}").contains("worker.json is damaged"), "{error:#}");
    }
}
