//! What runs on a box: the worker of one role, from the mark that an event left to a box in service.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`wake`] | leaves the mark and starts the worker; `handle` ends here |
//! | [`worker`] | one worker per role: asks what is to be done until nothing newer has come |
//! | [`plan`] | decides what is to be done; pure |
//! | [`rollout`] | the order of the steps |
//! | [`observe`] | what the box sees before that |
//! | [`steps`], [`lock_wait`], [`finish`] | the steps |
//! | [`step`] | what every step has: a phase, a deadline, words, a reason to stop |
//! | [`recover`] | the way back from a step that failed |
//! | [`heartbeat`] | renews the lock in a thread of its own, and hears a cancel |
//! | [`journal`] | what the box remembers across crashes |
//! | [`identity`] | who this box is |
//! | [`absent`] | a box that cannot take its part says so |
//! | [`manual`] | `out` and `in`: a person takes the box out of service and brings it back |
//! | [`with_lock`] | a person's command runs while the box is out of service |

mod absent;
mod box_role;
mod file_lock;
mod finish;
mod heartbeat;
mod identity;
mod journal;
mod lock_wait;
pub mod manual;
mod observe;
pub mod plan;
mod recover;
pub mod rollout;
pub mod shutdown;
mod step;
mod step_error;
mod steps;
pub mod wake;
pub mod with_lock;
pub mod worker;

pub use self::{
    absent::without_configuration,
    box_role::BoxRole,
    identity::{Identity, balancers, identify, serf},
    journal::Journal,
    step_error::{Outcome, StepError},
};
