//! What the documents show is so: its commands parse, its configuration is read, its tables are complete, and the files
//! that a fleet is provisioned with do what they say.

mod commands;
mod configuration;
mod document;
mod provisioning;
mod tables;
