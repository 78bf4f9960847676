//! The rules of the protocol, one by one, against a real Redis: each promise that a script makes in its head, and each
//! attempt to break it that we could think of.

mod world;

mod cancelling;
mod ending;
mod epochs;
mod grants;
mod keys;
mod leaving;
mod looks;
mod owning;
mod pausing;
mod rebooting;
mod remaining;
mod starting;
mod stepping;
mod verdicts;
mod zones;
