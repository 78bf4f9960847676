//! A model of the protocol that runs the project's own Lua: three boxes, two deploys, and everything that can happen to
//! them in any order. `make model` goes further than `make test` does.

mod against;
pub mod engine;
mod explore;
mod fleet;
pub mod memory;
mod mutations;
mod promises;
mod scenarios;
mod state;
