//! Our edges against the real things behind them: each by itself, without a deploy around it.

// A panic is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod actor;
mod aws_script;
mod compose;
mod load_balancer;
mod load_balancer_faults;
mod metadata;
mod serf;
