//! The audit log: what a person, a token or the service itself did.

use anyhow::Result;

use super::{ServiceStore, read, write};
use crate::{
    api::AuditEntry,
    names::{Place, Tag},
};

/// How many entries are kept.
const ENTRIES_KEPT: isize = 10_000;

impl AuditEntry {
    /// An act of `by`; when it happened, [`Service::audit`](crate::service) says.
    #[must_use]
    pub fn new(by: &str, action: &str) -> Self {
        Self {
            at: String::new(),
            by: by.to_owned(),
            action: action.to_owned(),
            role: None,
            environment: None,
            tag: None,
            deploy: None,
            detail: None,
        }
    }

    /// Where it was done.
    #[must_use]
    pub fn place(self, place: &Place) -> Self {
        Self { role: Some(place.role.clone()), environment: Some(place.environment.clone()), ..self }
    }

    /// The release it was about.
    #[must_use]
    pub fn tag(self, tag: &Tag) -> Self {
        Self { tag: Some(tag.clone()), ..self }
    }

    /// The deploy it was about.
    #[must_use]
    pub fn deploy(self, id: &str) -> Self {
        Self { deploy: Some(id.to_owned()), ..self }
    }

    /// Why, or with what result.
    #[must_use]
    pub fn detail(self, text: impl Into<String>) -> Self {
        Self { detail: Some(text.into()).filter(|text| !text.is_empty()), ..self }
    }
}

impl ServiceStore {
    /// Writes an entry down.
    pub fn append(&self, entry: &AuditEntry) -> Result<()> {
        let (key, text) = (self.key("audit"), write(entry)?);
        self.with(|store| {
            store.with(|c| redis::pipe().atomic().lpush(&key, &text).ltrim(&key, 0, ENTRIES_KEPT - 1).exec(c))
        })
    }

    /// The entries that are `wanted`, newest first.
    pub fn audit(&self, wanted: impl Fn(&AuditEntry) -> bool) -> Result<Vec<AuditEntry>> {
        self.audit_to("-1", wanted)
    }

    /// The newest entries, newest first.
    pub fn newest_audit(&self, most: usize) -> Result<Vec<AuditEntry>> {
        self.audit_to(&most.saturating_sub(1).to_string(), |_| true)
    }

    fn audit_to(&self, last: &str, wanted: impl Fn(&AuditEntry) -> bool) -> Result<Vec<AuditEntry>> {
        let key = self.key("audit");
        let texts: Vec<String> = self.with(|store| store.command(&["LRANGE", &key, "0", last]))?;
        let entries = texts.iter().map(|text| read(&key, text));
        entries.filter(|entry| entry.as_ref().map_or(true, &wanted)).collect()
    }
}
