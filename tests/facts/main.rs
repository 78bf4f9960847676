//! What deployctl relies on in the programs around it, each fact as a test on the real program: an upgrade that changes
//! one fails here, with its name.

// A panic is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod serf;
