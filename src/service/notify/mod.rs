//! Tells people and programs what happens: a turn.
//!
//! A turn is derived from what stands in Redis, and written down once by its id, together with an entry in the outbox of
//! every target that wants to hear of it. So whoever is killed in between loses nothing, and two services tell it once.
//! The outboxes are emptied by threads of their own, one a target, under a lease: no deploy and no other target waits.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`happened`] | what happened to a deploy, by its record. Pure |
//! | [`tell`] | looks for turns, and writes them down |
//! | [`stuck`] | a deploy whose boxes do not move |
//! | [`text`] | the words for people. Pure |
//! | [`outbox`] | what is due, what comes again later, what is given up. Pure |
//! | [`deliver`] | empties the outboxes |
//! | [`post`] | HTTP for the targets, without a secret in any error |
//! | [`command`], [`slack`], [`webhook`], [`github`], [`gitlab`] | one kind of target each |
//! | [`feed`] | the turns for programs that watch: `GET /v1/events` |

mod command;
mod deliver;
pub mod feed;
mod github;
mod gitlab;
mod happened;
mod outbox;
mod post;
mod slack;
mod stuck;
mod tell;
mod text;
mod webhook;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Result, bail};

use crate::{
    config::{Config, Delivery, secret_file},
    secret::Secret,
};

/// What one process remembers: the ids of the turns that it need not write down again. Nothing here is needed to go on
/// after a restart.
#[derive(Debug, Default)]
pub struct Told(Mutex<BTreeSet<String>>);

impl Told {
    fn ids(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether each target can be told, as far as its files say; with its name.
pub fn check(config: &Config) -> impl Iterator<Item = (&str, Result<&'static str>)> {
    config.service.notify.targets().map(|target| {
        let checked = match &target.how {
            Delivery::Command { .. } => Ok(()),
            Delivery::Slack(slack) => slack::address(slack).map(drop),
            Delivery::Webhook(webhook) => webhook::key(webhook).map(drop),
            Delivery::Github(github) => token(&github.token_file).map(drop),
            Delivery::Gitlab(gitlab) => token(&gitlab.token_file).map(drop),
        };
        (target.name.as_str(), checked.map(|()| target.how.kind()))
    })
}

/// A token that a header can carry.
fn token(file: &Path) -> Result<Secret> {
    let key = "token_file";
    let token = secret_file(key, file)?;
    if token.expose().is_empty() || !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("{key}: {} holds no token: write it there, and nothing else", file.display());
    }
    Ok(token)
}
