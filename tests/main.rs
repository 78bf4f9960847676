//! Every test, in one program: the groups share the real parts of [`support`], which are compiled once.
//!
//! | group | what it tests |
//! | --- | --- |
//! | `cli` | the command line: usage errors, exit codes, what is printed |
//! | `edges` | our edges against the real things behind them |
//! | `facts` | what we rely on in the programs around us |
//! | `protocol` | the scripts, one promise at a time, on a real Redis |
//! | `model` | the scripts under every order of events, for a few boxes |
//! | `simulation` | a whole fleet in simulated time, with everything that can go wrong, from one seed |
//! | `service` | the deployment service, on a real Redis and Serf |
//! | `e2e` | whole fleets |
//! | `documents` | that the README and `docs/` tell the truth |
//!
//! One group: `scripts/test.sh protocol::`. One test: its name.

// A panic is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cli;
mod documents;
mod e2e;
mod edges;
mod facts;
mod model;
mod protocol;
mod service;
mod simulation;
mod support;
