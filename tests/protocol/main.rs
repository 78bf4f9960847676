//! The rules of the protocol, one by one, against a real Redis: each promise that a script makes in its head, and each
//! attempt to break it that we could think of.

// A panic is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;
mod world;

mod cancelling;
mod ending;
mod epochs;
mod grants;
mod keys;
mod leaving;
mod owning;
mod remaining;
mod starting;
mod verdicts;
