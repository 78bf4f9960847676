//! What the README shows is so: its commands parse, its configuration is read, its tables are complete, and the files
//! that a fleet is provisioned with do what they say.

// A panic is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod configuration;
mod document;
mod provisioning;
mod tables;
