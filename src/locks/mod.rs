//! Locks, the table of boxes, `out`, `remaining` and cancel: what the boxes of one place agree on, kept in Redis.
//!
//! [`Place`]'s keys share one hash tag, `PREFIX:{ENV:ROLE}:`, so that a script touches one slot. The decisions are in
//! `scripts/*.lua`; here are their arguments and replies as types, and the reads that decide nothing.

mod records;
mod replies;
pub mod scripts;
mod store;

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result, anyhow};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use self::{records::Row, replies::StoredLock, scripts::Script};
pub use self::{
    records::{Doc, SCHEMA, rfc3339},
    replies::{Acquired, Begun, Cancel, Cancelled, Ended, Gated, Joined, Left, Pulse, Unlocked},
    store::{Store, Trouble},
};
use crate::{
    api::{Deploy, LockRow, Locks as LocksAnswer, OutRow},
    names::{BoxName, Place, Tag},
    parallel::MaxParallel,
};

/// The keys of one place, on a connection of their own.
pub struct Locks {
    store: Store,
    base: String,
}

/// Work on one box without a deploy: how many boxes there are, and how many may be out.
#[derive(Debug, Clone, Serialize)]
pub struct Hand {
    /// Live matching boxes.
    pub size: u32,
    /// The box's own `max_parallel`.
    pub max_parallel: MaxParallel,
    /// Why a person takes the box out until they bring it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A lock that was granted: its suffix, and the token that proves ownership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// 1..n.
    pub suffix: u32,
    /// Random; compared inside Redis.
    pub token: String,
}

/// What a load balancer that can count said, for the floor.
#[derive(Debug, Clone, Serialize)]
pub struct Survey {
    /// Which load balancer.
    pub key: String,
    /// This box's target in it.
    pub me: String,
    /// The targets that get requests.
    pub in_service: Vec<String>,
}

/// How a box's part in a deploy ends.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Finish {
    /// The last phase; absent where only a lock is given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<crate::api::Phase>,
    /// The tag the row shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// Why it ended so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Whether the box is in service.
    pub in_service: bool,
    /// The tag that the box runs now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Tag>,
    /// Wake nobody.
    pub quiet: bool,
}

/// The deadlines by which the service ends a deploy.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Between two renewals.
    pub interval: Duration,
    /// A lock's life.
    pub ttl: Duration,
    /// After this long a silent box is asked again.
    pub silence: Duration,
    /// Nothing else to do than wait for boxes that do not come.
    pub join: Duration,
    /// No progress.
    pub lock: Duration,
    /// The whole deploy.
    pub deploy: Duration,
}

/// The live members of the fleet, as the service's Serf agent sees them.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Members {
    /// Alive, and matching the place.
    pub alive: Vec<BoxName>,
    /// Failed, whatever their tags were.
    pub failed: Vec<BoxName>,
    /// Left, whatever their tags were.
    pub left: Vec<BoxName>,
}

/// Milliseconds, for the scripts.
fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Locks {
    /// The keys of `place` in `store`.
    #[must_use]
    pub fn new(store: Store, place: &Place) -> Self {
        let base = format!("{}:{{{}:{}}}:", store.prefix(), place.environment, place.role);
        Self { store, base }
    }

    /// The connection, for a caller's own reads.
    pub fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    /// The connection back, for another place.
    #[must_use]
    pub fn into_store(self) -> Store {
        self.store
    }

    fn call<T: DeserializeOwned>(&mut self, script: Script, args: &impl Serialize) -> Result<T> {
        let args = serde_json::to_string(args)?;
        let base = &self.base;
        let text: String = {
            let compiled = redis::Script::new(&script.source());
            self.store.with(|connection| compiled.key(base).arg(&args).invoke(connection))?
        };
        serde_json::from_str(&text).with_context(|| format!("the script {script:?} answered {text}"))
    }

    // The service --------------------------------------------------------------------------------------------------

    /// Starts `doc` on `boxes`. `epoch` is what the caller remembers of an earlier answer.
    pub fn begin(
        &mut self,
        doc: &Doc,
        boxes: &[BoxName],
        supersede: bool,
        gated: bool,
        epoch: Option<&str>,
    ) -> Result<Begun> {
        self.call(
            Script::Begin,
            &json!({"doc": doc, "boxes": boxes, "supersede": supersede, "gated": gated, "epoch": epoch}),
        )
    }

    /// Looks at the rolling deploy `id`: verdicts, and its end when it is over.
    pub fn end(&mut self, id: &str, members: &Members, patience: &Patience) -> Result<Ended> {
        self.call(
            Script::End,
            &json!({
                "id": id, "alive": members.alive, "failed": members.failed, "left": members.left,
                "interval": ms(patience.interval), "ttl": ms(patience.ttl), "silence": ms(patience.silence),
                "join_timeout": ms(patience.join), "lock_timeout": ms(patience.lock), "deploy_timeout": ms(patience.deploy),
            }),
        )
    }

    /// Puts `doc` behind the deploy that rolls; answers the id of the one it replaced in the queue.
    pub fn queue(&mut self, doc: &Doc) -> Result<Option<String>> {
        #[derive(serde::Deserialize)]
        struct Reply {
            replaced: Option<String>,
        }
        Ok(self.call::<Reply>(Script::Queue, &json!({ "doc": doc }))?.replaced)
    }

    /// Claims the gates before the start for `owner`, or says how they went.
    pub fn gates(&mut self, id: &str, step: GateStep, owner: &str, reason: Option<&str>) -> Result<Gated> {
        self.call(Script::Gates, &json!({"id": id, "step": step, "owner": owner, "reason": reason}))
    }

    /// Frees the lock and `out` entry of `name`; refused while it is renewed unless `force`.
    pub fn unlock(
        &mut self,
        name: &BoxName,
        force: bool,
        interval: Duration,
        by: &str,
        reason: &str,
    ) -> Result<Unlocked> {
        self.call(
            Script::Unlock,
            &json!({"box": name, "force": force, "interval": ms(interval), "by": by, "reason": reason}),
        )
    }

    /// Stops the deploy `id`, or the current one. Works without the service.
    pub fn cancel(&mut self, id: Option<&str>, by: &str, reason: &str, broken: bool) -> Result<Cancelled> {
        self.call(Script::Cancel, &json!({"id": id, "by": by, "reason": reason, "broken": broken}))
    }

    // The box ------------------------------------------------------------------------------------------------------

    /// Takes the place of `name` in `deploy` and adds the `boxes` that it sees. `retry`: a person insists.
    pub fn join(
        &mut self,
        name: &BoxName,
        deploy: &str,
        boxes: &[BoxName],
        retry: bool,
        epoch: Option<&str>,
    ) -> Result<Joined> {
        self.call(Script::Join, &json!({"box": name, "deploy": deploy, "boxes": boxes, "retry": retry, "epoch": epoch}))
    }

    /// Asks for a lock that lives `ttl`; `token` must be new. In a new epoch nothing is granted for `settle`.
    pub fn acquire(
        &mut self,
        name: &BoxName,
        deploy: &str,
        token: &str,
        (ttl, settle): (Duration, Duration),
        hand: Option<&Hand>,
        epoch: Option<&str>,
    ) -> Result<Acquired> {
        self.call(
            Script::Acquire,
            &json!({
                "box": name, "deploy": deploy, "token": token, "ttl": ms(ttl), "settle": ms(settle), "hand": hand, "epoch": epoch,
            }),
        )
    }

    /// Announces that `name` leaves its load balancers, which said `surveys`.
    pub fn leave(
        &mut self,
        name: &BoxName,
        deploy: &str,
        held: &Held,
        ttl: Duration,
        hand: Option<&Hand>,
        surveys: &[Survey],
    ) -> Result<Left> {
        self.call(
            Script::Leave,
            &json!({
                "box": name, "deploy": deploy, "suffix": held.suffix, "token": held.token, "ttl": ms(ttl), "hand": hand,
                "surveys": surveys,
            }),
        )
    }

    /// Says that the worker lives and where it stands; extends what it holds.
    pub fn renew(&mut self, pulse: &Renewal<'_>) -> Result<Pulse> {
        self.call(Script::Renew, pulse)
    }

    /// Ends the box's part; answers what then remains of the deploy.
    pub fn finish(
        &mut self,
        name: &BoxName,
        deploy: &str,
        held: Option<&Held>,
        finish: &Finish,
    ) -> Result<Option<u32>> {
        #[derive(serde::Deserialize)]
        struct Reply {
            remaining: Option<u32>,
        }
        let mut args = serde_json::to_value(finish)?;
        args["box"] = json!(name);
        args["deploy"] = json!(deploy);
        if let Some(held) = held {
            args["suffix"] = json!(held.suffix);
            args["token"] = json!(held.token);
        }
        Ok(self.call::<Reply>(Script::Finish, &args)?.remaining)
    }

    /// Stops grants for `wait` while `name` finds out whether the release is broken; zero lifts it.
    pub fn hold(&mut self, name: &BoxName, deploy: &str, wait: Duration) -> Result<()> {
        self.call::<serde_json::Value>(Script::Hold, &json!({"box": name, "deploy": deploy, "ms": ms(wait)}))
            .map(|_| ())
    }

    /// Waits until a lock may be free, a cancel was set, or `wait` is over.
    pub fn wait_for_wake(&mut self, wait: Duration) -> Result<()> {
        let mut command = redis::cmd("BLPOP");
        command.arg(format!("{}wake", self.base)).arg(wait.as_secs_f64());
        self.store.blocking::<Option<(String, String)>>(&command, wait).map(|_| ())
    }

    // Reads --------------------------------------------------------------------------------------------------------

    fn document(&mut self, key: &str) -> Result<Option<Doc>> {
        let key = format!("{}{key}", self.base);
        let text: Option<String> = self.store.command(&["GET", &key])?;
        text.map(|text| serde_json::from_str(&text).with_context(|| format!("{key} holds {text}"))).transpose()
    }

    /// The newest deploy that began here.
    pub fn current(&mut self) -> Result<Option<Doc>> {
        self.document("current")
    }

    /// The last complete deploy.
    pub fn complete(&mut self) -> Result<Option<Doc>> {
        self.document("complete")
    }

    /// The deploy that waits for the one that rolls.
    pub fn queued(&mut self) -> Result<Option<Doc>> {
        self.document("queued")
    }

    /// The document of the deploy `id`.
    pub fn doc(&mut self, id: &str) -> Result<Option<Doc>> {
        self.document(&format!("deploy:{id}:record"))
    }

    /// The cancel of the deploy `id`, if there is one.
    pub fn cancel_of(&mut self, id: &str) -> Result<Option<Cancel>> {
        let key = format!("{}deploy:{id}:cancel", self.base);
        let text: Option<String> = self.store.command(&["GET", &key])?;
        text.map(|text| serde_json::from_str(&text).with_context(|| format!("{key} holds {text}"))).transpose()
    }

    /// The deploy `id`, with its boxes.
    pub fn deploy(&mut self, id: &str) -> Result<Option<Deploy>> {
        self.doc(id)?.map(|doc| self.show(&doc, true)).transpose()
    }

    /// What `doc` looks like from outside.
    pub fn show(&mut self, doc: &Doc, with_boxes: bool) -> Result<Deploy> {
        let key = format!("{}deploy:{}:", self.base, doc.id);
        let rows: HashMap<String, String> = self.store.command(&["HGETALL", &format!("{key}boxes")])?;
        let remaining: Option<u32> = self.store.command(&["GET", &format!("{key}remaining")])?;
        let rows: HashMap<String, Row> = rows
            .into_iter()
            .map(|(name, text)| serde_json::from_str(&text).map(|row| (name, row)))
            .collect::<Result<_, _>>()
            .with_context(|| format!("{key}boxes"))?;
        Ok(records::deploy(doc, rows, remaining, with_boxes))
    }

    /// The newest `limit` deploys, newest first, without their boxes.
    pub fn deploys(&mut self, limit: u32) -> Result<Vec<Deploy>> {
        let key = format!("{}deploys", self.base);
        let last = limit.saturating_sub(1).to_string();
        let ids: Vec<String> = self.store.command(&["ZREVRANGE", &key, "0", &last])?;
        let mut found = Vec::new();
        for id in ids {
            // A record that expired leaves its id behind.
            if let Some(doc) = self.doc(&id)? {
                found.push(self.show(&doc, false)?);
            }
        }
        Ok(found)
    }

    /// Which tag each box runs.
    pub fn running(&mut self) -> Result<HashMap<String, String>> {
        let key = format!("{}running", self.base);
        self.store.command(&["HGETALL", &key])
    }

    /// Whether `name` stands in `out`.
    pub fn is_out(&mut self, name: &BoxName) -> Result<bool> {
        let key = format!("{}out", self.base);
        self.store.command(&["HEXISTS", &key, name.as_str()])
    }

    /// Who holds which lock, and which boxes are out.
    pub fn locks(&mut self) -> Result<LocksAnswer> {
        let base = self.base.clone();
        let granted: Option<u32> = self.store.command(&["HGET", &format!("{base}walk"), "top"])?;
        let current = self.current()?.map(|doc| self.show(&doc, false)).transpose()?;
        let top = granted.unwrap_or(0).max(current.map_or(1, |deploy| deploy.locks));
        let keys: Vec<String> = (1..=top).map(|suffix| format!("{base}lock:{suffix}")).collect();
        let words: Vec<&str> = ["MGET"].into_iter().chain(keys.iter().map(String::as_str)).collect();
        let texts: Vec<Option<String>> = self.store.command(&words)?;
        let mut answer = LocksAnswer::default();
        for (suffix, (key, text)) in (1..).zip(keys.iter().zip(texts)) {
            let Some(text) = text else { continue };
            let lock = StoredLock::read(&text);
            let left: i64 = self.store.command(&["PTTL", key])?;
            answer.locks.push(LockRow {
                suffix,
                name: lock.holder().map_or_else(|| "unknown".parse().map_err(|e| anyhow!("{key}: {e}")), Ok)?,
                deploy: lock.deploy,
                since: rfc3339(lock.since),
                renewed: rfc3339(lock.renewed),
                expires_in_ms: u64::try_from(left).unwrap_or(0),
            });
        }
        let outs: HashMap<String, String> = self.store.command(&["HGETALL", &format!("{base}out")])?;
        for (name, text) in outs {
            let entry: replies::StoredOut =
                serde_json::from_str(&text).with_context(|| format!("{base}out holds {text}"))?;
            answer.out.push(OutRow {
                name: name.parse().map_err(|e| anyhow!("{base}out: {e}"))?,
                deploy: entry.deploy,
                since: rfc3339(entry.since),
                renewed: rfc3339(entry.renewed),
                reason: entry.hand,
            });
        }
        answer.out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(answer)
    }
}

/// What a service says of the gates before the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GateStep {
    /// It asks them.
    Claim,
    /// They passed.
    Pass,
    /// One failed: the deploy ends.
    Fail,
}

/// What a worker says when it renews.
#[derive(Debug, Clone, Serialize)]
pub struct Renewal<'a> {
    /// Who.
    #[serde(rename = "box")]
    pub name: &'a BoxName,
    /// For which deploy.
    pub deploy: &'a str,
    /// Where it stands; absent while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<crate::api::Phase>,
    /// What it is at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'a str>,
    /// Its lock, if it holds one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix: Option<u32>,
    /// The lock's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<&'a str>,
    /// The lock's life, in milliseconds.
    pub ttl: u64,
    /// Whether the box is out of service.
    pub out: bool,
    /// The epoch it remembers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<&'a str>,
}

/// A token that nobody else has: 128 random bits.
pub fn new_token() -> Result<String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|e| anyhow!("no randomness: {e}"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
