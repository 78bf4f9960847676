//! What runs on a box: the worker of one role, from the mark that an event left to a box in service.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`wake`] | leaves the mark and starts the worker; `handle` ends here |
//! | [`worker`] | one worker per role: asks what is to be done until nothing newer has come |
//! | [`plan`] | decides what is to be done; pure |
//! | [`rollout`] | the order of the steps |
//! | [`steps`], [`lock_wait`] | the steps |
//! | [`recover`] | the way back from a step that failed |
//! | [`heartbeat`] | renews the lock in a thread of its own, and hears a cancel |
//! | [`journal`] | what the box remembers across crashes |
//! | [`manual`] | `out` and `in`: a person takes the box out of service and brings it back |

mod box_role;
mod file_lock;
mod heartbeat;
mod journal;
mod lock_wait;
pub mod manual;
pub mod plan;
mod recover;
pub mod rollout;
pub mod shutdown;
mod step_error;
mod steps;
pub mod wake;
pub mod worker;

pub use self::{
    box_role::{BoxRole, Identity, balancers, identify, serf, without_configuration},
    step_error::{Outcome, StepError},
};
