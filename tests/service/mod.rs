//! The deployment service over its API, with a real Redis, and with real Serf agents where members or events matter.

mod access;
mod approval;
mod blame;
mod events;
mod failures;
mod fleet_lock;
mod limits;
mod listener;
mod marks;
mod names;
mod notify;
mod notify_targets;
mod page;
mod pausing;
mod promotion;
mod records;
mod roll_gates;
mod rolling;
mod setup;
mod windows;
mod zones;
