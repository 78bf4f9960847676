//! The deployment service over its API, with a real Redis, and with real Serf agents where members or events matter.

// A panic is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod blame;
mod failures;
mod limits;
mod promotion;
mod records;
mod rolling;
mod setup;
