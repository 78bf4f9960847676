//! The command line as its users meet it: usage errors, exit codes, what is printed, and the event handler.

// A panic is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod deploys;
mod doctor;
mod handle;
mod setup;
mod usage;
