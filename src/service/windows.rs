//! Where nothing new starts now, since no window of the configuration is open.

use jiff::Timestamp;

use super::{
    Service,
    policy::windows::{self, Closed},
};
use crate::{api::ClosedPlace, names::Place};

impl Service {
    /// Whether all windows of `place` are closed now.
    pub fn closed(&self, place: &Place) -> Option<Closed> {
        let policy = self.config.service.roles.get(&place.role)?;
        let here = policy.windows.iter().filter(|window| window.environment == place.environment);
        windows::closed(here, Timestamp::now())
    }

    /// Every place that is outside its windows now.
    pub fn closed_places(&self) -> Vec<ClosedPlace> {
        let mut found: Vec<ClosedPlace> = Vec::new();
        for (role, policy) in &self.config.service.roles {
            for window in &policy.windows {
                let place = Place { environment: window.environment.clone(), role: role.clone() };
                let known = found.iter().any(|one| one.role == *role && one.environment == place.environment);
                if let (false, Some(closed)) = (known, self.closed(&place)) {
                    let opens = closed.opens.map(|opens| opens.timestamp());
                    found.push(ClosedPlace { role: place.role, environment: place.environment, opens });
                }
            }
        }
        found
    }
}
