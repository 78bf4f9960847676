//! A fleet that deploys itself: see `README.md` for what it does, `docs/` for how it is used. Imports point down only:
//!
//! ```text
//! cli       the command line's types              commands/      one thin file a subcommand
//! agent/    runs on a box: mark, worker, plan, steps, way back
//! service/  runs on one host: http, handlers, page, start, policy, store, reconcile
//! coordination/   what both agree on in Redis: keys, requests, replies, the Lua scripts
//! compose/  load_balancer/  serf  client  metadata  process      one room for each outside thing
//! api  config  names  tags  event  parallel  exit  secret        pure: no clock, no environment, no I/O
//! ```

pub mod agent;
pub mod api;
pub mod cli;
pub mod client;
pub mod commands;
pub mod compose;
pub mod config;
pub mod coordination;
pub mod event;
pub mod exit;
pub mod load_balancer;
pub mod metadata;
pub mod names;
pub mod parallel;
pub mod process;
pub mod retry;
pub mod screen;
pub mod secret;
pub mod serf;
pub mod service;
pub mod sleep;
pub mod tags;
