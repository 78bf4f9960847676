//! Freezes: environments, or one role in one, where nothing new starts.

use anyhow::Result;
use jiff::Timestamp;

use super::{ServiceStore, read, write};
use crate::{
    api::Freeze,
    names::{Environment, Place, Role},
};

impl Freeze {
    /// Whether nothing new starts at `place`.
    #[must_use]
    pub fn covers(&self, place: &Place) -> bool {
        self.environment == place.environment && self.role.as_ref().is_none_or(|role| *role == place.role)
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    fn field(environment: &Environment, role: Option<&Role>) -> String {
        role.map_or_else(|| environment.to_string(), |role| format!("{environment}:{role}"))
    }
}

impl ServiceStore {
    /// Writes a freeze down, in place of an older one of the same scope.
    pub fn freeze(&self, freeze: &Freeze) -> Result<()> {
        let (key, text) = (self.key("freezes"), write(freeze)?);
        let field = Freeze::field(&freeze.environment, freeze.role.as_ref());
        self.with(|store| store.command(&["HSET", &key, &field, &text]))
    }

    /// Ends a freeze of exactly this scope. Returns whether there was one.
    pub fn unfreeze(&self, environment: &Environment, role: Option<&Role>) -> Result<bool> {
        let key = self.key("freezes");
        let field = Freeze::field(environment, role);
        self.with(|store| store.command(&["HDEL", &key, &field]))
    }

    /// All freezes that last, by scope. One that is over stays where it is until it is replaced or ended.
    pub fn freezes(&self) -> Result<Vec<Freeze>> {
        let key = self.key("freezes");
        let texts: std::collections::BTreeMap<String, String> = self.with(|store| store.command(&["HGETALL", &key]))?;
        let freezes: Vec<Freeze> = texts.values().map(|text| read(&key, text)).collect::<Result<_>>()?;
        let now = Timestamp::now();
        Ok(freezes.into_iter().filter(|freeze| !freeze.is_over(now)).collect())
    }

    /// The freeze that covers `place`, if one does.
    pub fn frozen(&self, place: &Place) -> Result<Option<Freeze>> {
        Ok(self.freezes()?.into_iter().find(|freeze| freeze.covers(place)))
    }
}
