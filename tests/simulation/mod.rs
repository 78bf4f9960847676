//! A whole fleet in simulated time, with everything that can go wrong, from one seed.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`schedule`] | one seed, from its first deploy to rest |
//! | [`clock`], [`dice`] | simulated time and the tasks in it; chance |
//! | [`server`] | a Redis in memory with the real scripts, which always believe the counts they keep; the real client |
//! | [`service`] | the real service, without threads |
//! | [`fleet`] | the boxes, their lines, what they ask Redis by the real requests and replies |
//! | [`worker`], [`heartbeat`] | a worker: the calls of `agent`, in their order, with its real decision |
//! | [`person`], [`trouble`] | what people do, and what happens |
//! | [`promises`] | the rules, looked at with every step |
//! | [`seeds`] | many seeds, and one again |
//! | [`mutations`] | changes of the Lua, each of which some seed must notice |

mod clock;
mod dice;
mod fleet;
mod heartbeat;
mod mutations;
mod person;
mod promises;
mod schedule;
mod seeds;
mod server;
mod service;
mod trouble;
mod worker;
