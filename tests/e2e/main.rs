//! End to end: whole fleets of real parts, and what a person who uses them would notice.

// A panic is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod broken;
mod hands;
mod healing;
mod interrupted;
mod parts;
mod promoting;
mod proving;
mod rolling;
