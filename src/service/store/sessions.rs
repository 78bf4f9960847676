//! Sessions of people who look at the page. Redis keeps the digest of a session's id, so that whoever reads Redis has no
//! session by it.

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ServiceStore, read, write};
use crate::secret::hex;

/// The token that a session began with. What it may do is asked of the configuration at each request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The token's name.
    pub token: String,
    /// The token's SHA-256: another token of that name does not take the session over.
    pub sha256: String,
}

impl ServiceStore {
    /// Begins a session, which ends by itself after `life`.
    pub fn begin_session(&self, id: &str, session: &Session, life: Duration) -> Result<()> {
        let (key, text) = (self.session_key(id), write(session)?);
        let life = life.as_millis().to_string();
        self.with(|store| store.command(&["SET", &key, &text, "PX", &life]))
    }

    /// The session of this id.
    pub fn session(&self, id: &str) -> Result<Option<Session>> {
        let key = self.session_key(id);
        let text: Option<String> = self.with(|store| store.command(&["GET", &key]))?;
        text.map(|text| read(&key, &text)).transpose()
    }

    /// Ends a session.
    pub fn end_session(&self, id: &str) -> Result<()> {
        let key = self.session_key(id);
        self.with(|store| store.command(&["DEL", &key]))
    }

    fn session_key(&self, id: &str) -> String {
        self.key(&format!("session:{}", hex(&Sha256::digest(id.as_bytes()))))
    }
}
