//! A fleet that deploys itself: see the README for what it does.
//!
//! From the top: [`commands`] (one file for each subcommand); on a box [`worker`], [`deploy`] (the story of one deploy on one
//! box) and [`site`] (its steps), on the service's host [`service`]; below them the edges, one for each outside thing; at
//! the bottom the pure part, which knows no clock, no environment and no I/O. Imports point down only.

pub mod api;
pub mod cli;
pub mod commands;
pub mod compose;
pub mod config;
pub mod deploy;
pub mod event;
pub mod exit;
pub mod load_balancer;
pub mod locks;
pub mod metadata;
pub mod names;
pub mod parallel;
pub mod pause;
pub mod process;
pub mod releases;
pub mod retry;
pub mod screen;
pub mod secret;
pub mod serf;
pub mod service;
pub mod site;
pub mod tags;
pub mod wake;
pub mod worker;
