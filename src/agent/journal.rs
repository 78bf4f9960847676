//! What a box remembers of a role across crashes: the release that last worked, the work that was interrupted, and
//! whether a person keeps the box out. One file, written whole, so that it is always one of its states.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{
    api::Kind,
    compose::Rendered,
    names::{Role, Tag},
};

/// A release that was healthy on this box.
#[derive(Clone, Serialize, Deserialize)]
pub struct Good {
    /// Which.
    pub tag: Tag,
    /// Brought by which deploy.
    pub deploy: String,
    /// And why.
    pub kind: Kind,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// What ran: enough to go back to it, whatever the compose file says by then.
    pub rendered: Rendered,
}

/// Work that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// For which deploy.
    pub deploy: String,
    /// Which tag.
    pub tag: Tag,
    /// Containers may have been changed.
    pub started: bool,
}

/// What is remembered.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The release that last worked. Only another that works replaces it: resuming never does.
    pub good: Option<Good>,
    /// The one before.
    pub before: Option<Good>,
    /// What the box is at while it is out.
    pub work: Option<Work>,
    /// Why a person keeps the box out.
    pub kept_out: Option<String>,
}

/// The journal of one role.
pub struct Journal {
    folder: PathBuf,
    role: Role,
    state: State,
}

impl Journal {
    /// Reads the journal of `role`; an absent one is empty.
    pub fn open(state_dir: &Path, role: &Role) -> Result<Self> {
        let path = state_dir.join(format!("{role}.json"));
        let state = match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .with_context(|| format!("{} is damaged: move it away, then run `deployctl run`", path.display()))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => State::default(),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}; see state_dir", path.display())),
        };
        Ok(Self { folder: state_dir.to_path_buf(), role: role.clone(), state })
    }

    /// A journal that remembers nothing, for a box whose own cannot be read. It is not to be changed.
    pub fn empty(state_dir: &Path, role: &Role) -> Self {
        Self { folder: state_dir.to_path_buf(), role: role.clone(), state: State::default() }
    }

    /// What it says.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Changes it, durably.
    pub fn update(&mut self, change: impl FnOnce(&mut State)) -> Result<()> {
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
