//! Gates on behalf of a person who waits for the answer: they are asked now. What the watch hears meanwhile counts, and what
//! it heard before does not: the person has seen what is wrong since.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::service::{
    Service,
    api_error::{ApiError, ApiResult, ErrorKind},
    reconcile::{
        gates::Reading,
        repeated_gates::{Judged, lease},
    },
};
use crate::{
    api::Kind,
    config::{Gate, When},
    names::Place,
    sleep::{jittered, sleep},
};

/// How long the person waits, for all gates together. A client gives a call up after 15 s.
const PERSON_WAITS: Duration = Duration::from_secs(10);
/// Between two looks at what another thread, or another service, asks just now.
const READINGS_POLL: Duration = Duration::from_millis(100);

impl Service {
    /// Refuses to let what was deployed at `place` go on while a gate objects that stands between it and its promotion. A
    /// rollback is not judged. Only the watch marks a release: here nothing follows from an answer but this refusal.
    pub fn gates_let_pass(&self, place: &Place, judged: &Judged) -> ApiResult<()> {
        if judged.kind == Kind::Rollback {
            return Ok(());
        }
        let asked = Instant::now();
        for (number, gate) in self.gates_of(place, When::Bake).chain(self.gates_of(place, When::Roll)) {
            if let Some(why) = self.objection(&gate, number, place, judged, asked)? {
                let Place { environment, role } = place;
                let text = format!(
                    "a gate in {environment} does not let {role}:{} pass: {why}; wait until it does, or --force",
                    judged.tag
                );
                return Err(ApiError::new(ErrorKind::Gate, text));
            }
        }
        Ok(())
    }

    /// Whether a gate must be asked before anything goes on from `place`.
    pub fn has_gates(&self, place: &Place) -> bool {
        self.gates_of(place, When::Bake).chain(self.gates_of(place, When::Roll)).next().is_some()
    }

    fn objection(
        &self,
        gate: &Gate,
        number: usize,
        place: &Place,
        judged: &Judged,
        asked: Instant,
    ) -> Result<Option<String>> {
        let key = (judged.id.clone(), number);
        loop {
            if let Some(heard) = self.gate_results().get(&key).filter(|heard| heard.age() < asked.elapsed()) {
                return Ok(heard.objection().map(str::to_owned));
            }
            let left = PERSON_WAITS.saturating_sub(asked.elapsed());
            if left.is_zero() {
                return Ok(Some("it is being asked, and has not answered yet".to_owned()));
            }
            if self.store.lease(&lease(&key))? {
                let reading = self.read_gate(gate, place, judged, left.min(self.config.command_timeout));
                self.store.give_back(&lease(&key))?;
                return Ok(match reading? {
                    Reading::Pass(_) => None,
                    Reading::Fail(why) => Some(why),
                    Reading::Unknown(why) => Some(format!("it cannot be asked: {why}")),
                });
            }
            if !sleep(jittered(READINGS_POLL).min(left), &|| self.is_stopping()) {
                return Ok(Some("the service stops".to_owned()));
            }
        }
    }
}
