//! Every Redis key: what it holds, who writes it, when it expires.
//!
//! Each begins with `PREFIX`, the configuration's `redis_prefix`. The keys of one place share a hash tag, so that a
//! script touches one slot. The scripts write them; Rust reads some.
//!
//! | `PREFIX:{ENV:ROLE}:…` | holds | written by | expires |
//! | --- | --- | --- | --- |
//! | `current` | the newest deploy that began, JSON | `begin`, `gates`, `pause`, whatever ends it | – |
//! | `complete` | the last complete deploy, JSON | `end` | – |
//! | `queued` | the deploy that waits, JSON | `queue`, `begin`, `cancel` | – |
//! | `deploys` | ids by the time they began, sorted set | `begin`, `queue` | entries after 60 days |
//! | `lock:N` | box, deploy, token, since, renewed; JSON | `acquire`, `leave`, `renew` | after `lock_ttl` |
//! | `holders` | box → the suffix of its lock | with the lock | – |
//! | `walk` | `top`: the highest suffix ever granted; `next`: 0 until a script of an older version takes or frees a lock | `acquire` | – |
//! | `free` | suffixes that may be free, sorted set | whatever frees a lock | – |
//! | `full` | what the next box would wait for, text | `acquire` | after 2 s, or when a lock is freed |
//! | `used`, `away`, `taking` | box → until when it counts, sorted sets: see `counts.lua` | with the lock, `out` and the row | – |
//! | `used:ZONE`, `away:ZONE`, `taking:ZONE` | of them, the boxes of one zone | as they | – |
//! | `zones` | box → its zone, of those that have one | `begin`, `join`, `acquire` by hand | – |
//! | `zone_names` | the zones that boxes have or had since the last `begin`, set | with `zones` | – |
//! | `counted` | what the counts were made from, text | every script | after 2 s: then they are made anew |
//! | `out` | box → deploy, token, renewed, targets, `begun` (the deploy it left for); hash of JSON | `leave`, `renew`; `finish`, `end`, `unlock` remove | never |
//! | `reboots` | box → id, purpose, since, `dead_since`: has a place for a reboot; hash of JSON | `reserve`; `release`, `reboots`, `unlock` remove | never |
//! | `ended` | box → its last tokens that have ended | `finish`, `unlock` | – |
//! | `running` | box → the tag it runs | `finish` | – |
//! | `epoch` | id, run id of Redis, since; JSON | the first script that sees a new Redis | – |
//! | `wake` | one entry for each waiter to be woken, list | whatever frees a lock or stops a deploy | – |
//! | `look:LB` | target → how the load balancer sees it, JSON; `@begun`: when the look began | `looked` | after 60 s |
//! | `looker:LB` | the token of the box whose turn it is to look | `look` | after 10 s |
//! | `deploy:ID:record` | the deploy, JSON | as `current` | 30 days after its end |
//! | `deploy:ID:boxes` | box → phase, tag, detail, seen, since; hash of JSON | every script | 30 days |
//! | `deploy:ID:remaining` | boxes in an unfinished phase | with the table | 30 days |
//! | `deploy:ID:tally` | boxes by phase; `progress`, `begun`, `looked`, `thorough`, `fading`, `gap`, `gone_by_silence` | with the table | 30 days |
//! | `deploy:ID:zones` | `ZONE size`, `ZONE gone`, `ZONE waits`, `ZONE expected` → how many boxes; absent where no box has a zone: see `zones.lua` | with the table | 30 days |
//! | `deploy:ID:lost` | zones of two or more boxes none of which lives, set | `end` | 30 days |
//! | `deploy:ID:working`, `deploy:ID:seen` | boxes that work, and others with an unfinished row → when they were heard of; sorted sets | with the table | 30 days |
//! | `deploy:ID:members` | digests of the lists of boxes that the table holds already, set | `begin`, `join` | 30 days |
//! | `deploy:ID:failed` | boxes that failed, set | with the table | 30 days |
//! | `deploy:ID:cancel` | by, reason, at, broken, superseded, failed; JSON | `cancel`, `begin`, `end` | 30 days |
//! | `deploy:ID:hold` | box → until when nobody takes a lock | `hold`, `finish` | 30 days |
//!
//! | `PREFIX:service:…` | holds | expires |
//! | --- | --- | --- |
//! | `releases:ROLE`, `releases:ROLE:order` | tag → release, and the order of publication | never |
//! | `marks:ROLE` | tag → why it is broken or withheld | never |
//! | `approvals:ID` | token → who approves that complete deploy, and why; until it is promoted | after 30 days |
//! | `freezes` | scope → freeze | – |
//! | `audit` | who did what, newest first | beyond 10,000 entries |
//! | `complete:ENV:ROLE` | the last complete deploys, by their end | beyond the newest |
//! | `promoted` | place → the source of its last promotion | – |
//! | `ended`, `ended:ms` | how many deploys ended how, and how long they took | – |
//! | `places`, `open` | where deploys ever began; deploys whose end is still to be followed up | – |
//! | `lease:NAME`, `event:ID` | who is at a piece of work; when the event was sent | after seconds |
//! | `turns` | what happened, as people are told: number → the number and the turn; sorted set | beyond 5,000 |
//! | `turn:ID` | that this turn was written down | after 90 days |
//! | `outbox:TARGET` | number of a turn → how often it was tried, and when it is due; hash of JSON | when it is told, or after a day; the whole after two days without a new one |
//! | `notified` | `TARGET:OUTCOME` → how many notifications ended so | – |
//! | `session:SHA256` | the token of who looks at the page, by the digest of the session's id | after 12 h |
//! | `probe` | nothing: whether Redis can be written | after a minute |

use crate::names::Place;

/// The keys of one place that Rust reads or hands to the scripts.
#[derive(Debug, Clone)]
pub struct PlaceKeys {
    base: String,
}

impl PlaceKeys {
    /// The keys of `place` under `prefix`.
    #[must_use]
    pub fn new(prefix: &str, place: &Place) -> Self {
        Self { base: format!("{prefix}:{{{}:{}}}:", place.environment, place.role) }
    }

    /// What all of them begin with, as the scripts' one key.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    fn named(&self, name: &str) -> String {
        format!("{}{name}", self.base)
    }

    pub(super) fn current(&self) -> String {
        self.named("current")
    }

    pub(super) fn complete(&self) -> String {
        self.named("complete")
    }

    pub(super) fn queued(&self) -> String {
        self.named("queued")
    }

    pub(super) fn deploys(&self) -> String {
        self.named("deploys")
    }

    pub(super) fn lock(&self, suffix: u32) -> String {
        self.named(&format!("lock:{suffix}"))
    }

    pub(super) fn walk(&self) -> String {
        self.named("walk")
    }

    pub(super) fn out(&self) -> String {
        self.named("out")
    }

    pub(super) fn zones(&self) -> String {
        self.named("zones")
    }

    pub(super) fn reboots(&self) -> String {
        self.named("reboots")
    }

    pub(super) fn running(&self) -> String {
        self.named("running")
    }

    pub(super) fn wake(&self) -> String {
        self.named("wake")
    }

    /// A part of the deploy `id`: `record`, `boxes`, `remaining`, `tally`, `cancel`, `zones`, `lost`.
    pub(super) fn of_deploy(&self, id: &str, part: &str) -> String {
        self.named(&format!("deploy:{id}:{part}"))
    }
}
