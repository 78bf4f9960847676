//! Approvals of what is to go on to the next environment: `approvals:ID`, by the id of the complete deploy, so that those
//! of another one never count; token's name → approval.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{ServiceStore, read, write};
use crate::api::Approval;

/// How long they are kept, in seconds: as long as the deploy's own record.
const APPROVAL_LIFE: i64 = 30 * 24 * 3600;

impl ServiceStore {
    /// Writes down that `token` approves the complete deploy `source`; again changes nothing. Whether it was new.
    pub fn approve(&self, source: &str, token: &str, approval: &Approval) -> Result<bool> {
        let (key, text) = (self.approvals_key(source), write(approval)?);
        let (new,): (bool,) = self.with(|store| {
            store.with(|c| {
                redis::pipe().atomic().hset_nx(&key, token, &text).expire(&key, APPROVAL_LIFE).ignore().query(c)
            })
        })?;
        Ok(new)
    }

    /// Who approves the complete deploy `source`, by the token's name.
    pub fn approvals(&self, source: &str) -> Result<BTreeMap<String, Approval>> {
        let key = self.approvals_key(source);
        let texts: BTreeMap<String, String> = self.with(|store| store.command(&["HGETALL", &key]))?;
        texts.into_iter().map(|(token, text)| Ok((token, read(&key, &text)?))).collect()
    }

    /// Removes the approvals of `source`, whose promotion has begun.
    pub fn forget_approvals(&self, source: &str) -> Result<()> {
        let key = self.approvals_key(source);
        self.with(|store| store.command(&["DEL", &key]))
    }

    fn approvals_key(&self, source: &str) -> String {
        self.key(&format!("approvals:{source}"))
    }
}
