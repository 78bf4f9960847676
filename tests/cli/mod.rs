//! The command line as its users meet it: usage errors, exit codes, what is printed, and the event handler.

mod complete;
mod deploys;
mod doctor;
mod first_mile;
mod handle;
mod releases;
mod setup;
mod usage;
mod why;
