//! Locks, the table of boxes, `out`, `remaining` and cancel: what the boxes of one place agree on, kept in Redis.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`keys`] | every Redis key |
//! | `lua/` | the scripts: every decision, each headed by what it promises |
//! | [`scripts`] | how they are put together |
//! | `requests`, `replies` | their arguments and answers as types |
//! | `looks` | looks at load balancers that boxes share |
//! | `reads` | what can be read without deciding anything |
//! | `records` | the record of a deploy, and what the API shows of it |
//! | `connection` | the connection to Redis |

mod connection;
pub mod keys;
mod looks;
mod reads;
mod records;
mod replies;
mod requests;
pub mod scripts;

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

pub use self::{
    connection::{RedisConnection, RedisError, RedisServer, Wire},
    looks::RedisLooks,
    records::{DeployRecord, SCHEMA, StepRecord, rfc3339},
    replies::{
        AcquireReply, BeginReply, Cancel, CancelReply, EndReply, GateReply, JoinReply, LeaveReply, PauseReply, Refusal,
        RenewReply, ReserveReply, UnlockReply,
    },
    requests::{
        Finish, GateStep, Held, ManualRun, ManualRunZone, Members, RenewRequest, Reservation, Survey, Timeouts,
        zone_sizes,
    },
};
use self::{keys::PlaceKeys, replies::GlanceReply, scripts::Script};
use crate::{
    api::State,
    names::{BoxName, Place, Zones},
};

/// The keys of one place, on a connection of their own.
pub struct Coordinator {
    store: RedisConnection,
    keys: PlaceKeys,
}

/// A rolling deploy is gone through box by box at least so often, whatever the kept figures say.
const THOROUGHLY: Duration = Duration::from_secs(30);

/// Milliseconds, for the scripts.
fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Coordinator {
    /// The keys of `place` in `store`.
    #[must_use]
    pub fn new(store: RedisConnection, place: &Place) -> Self {
        let keys = PlaceKeys::new(store.prefix(), place);
        Self { store, keys }
    }

    /// The connection, for a caller's own reads.
    pub fn store(&mut self) -> &mut RedisConnection {
        &mut self.store
    }

    /// The connection back, for another place.
    #[must_use]
    pub fn into_store(self) -> RedisConnection {
        self.store
    }

    fn call<T: DeserializeOwned>(&mut self, script: Script, args: &impl Serialize) -> Result<T> {
        let args = serde_json::to_string(args)?;
        let base = self.keys.base();
        let text: String = self.store.with(|connection| script.compiled().key(base).arg(&args).invoke(connection))?;
        serde_json::from_str(&text).with_context(|| format!("the script {script:?} answered {text}"))
    }

    // The service --------------------------------------------------------------------------------------------------

    /// Starts `doc` on `boxes`, in their `zones`. `epoch` is what the caller remembers of an earlier answer.
    pub fn begin(
        &mut self,
        doc: &DeployRecord,
        boxes: &[BoxName],
        zones: &Zones,
        supersede: bool,
        gated: bool,
        epoch: Option<&str>,
    ) -> Result<BeginReply> {
        self.call(
            Script::Begin,
            &json!({
                "doc": doc, "boxes": boxes, "zones": zones, "supersede": supersede, "gated": gated, "epoch": epoch,
            }),
        )
    }

    /// Looks at the rolling deploy `id`: verdicts, and its end when it is over. Nearly always there are none; that costs
    /// little, however many boxes there are.
    pub fn end(&mut self, id: &str, members: &Members, patience: &Timeouts) -> Result<EndReply> {
        let mut args = json!({
            "id": id, "failed": members.failed, "left": members.left, "often": ms(THOROUGHLY),
            "interval": ms(patience.interval), "ttl": ms(patience.ttl), "silence": ms(patience.silence),
            "join_timeout": ms(patience.join), "lock_timeout": ms(patience.lock), "deploy_timeout": ms(patience.deploy),
            "look_gap": ms(patience.look_gap),
        });
        let glance: GlanceReply = self.call(Script::Glance, &args)?;
        if !glance.look {
            return Ok(EndReply { ended: false, state: State::Rolling, reason: None, silent: glance.silent });
        }
        args["alive"] = json!(members.alive);
        self.call(Script::End, &args)
    }

    /// Puts `doc` behind the deploy that rolls; answers the id of the one it replaced in the queue.
    pub fn queue(&mut self, doc: &DeployRecord) -> Result<Option<String>> {
        #[derive(serde::Deserialize)]
        struct Reply {
            replaced: Option<String>,
        }
        Ok(self.call::<Reply>(Script::Queue, &json!({ "doc": doc }))?.replaced)
    }

    /// Claims the gates before the start for `owner`, or says how they went.
    pub fn gates(&mut self, id: &str, step: GateStep, owner: &str, reason: Option<&str>) -> Result<GateReply> {
        self.call(Script::Gates, &json!({"id": id, "step": step, "owner": owner, "reason": reason}))
    }

    /// Pauses the deploy `id` for `reason`, or lets it go on without one.
    pub fn pause(&mut self, id: &str, by: &str, reason: Option<&str>) -> Result<PauseReply> {
        self.call(Script::Pause, &json!({"id": id, "by": by, "reason": reason}))
    }

    /// Frees the lock and `out` entry of `name`; refused while it is renewed unless `force`.
    pub fn unlock(
        &mut self,
        name: &BoxName,
        force: bool,
        interval: Duration,
        by: &str,
        reason: &str,
    ) -> Result<UnlockReply> {
        self.call(
            Script::Unlock,
            &json!({"box": name, "force": force, "interval": ms(interval), "by": by, "reason": reason}),
        )
    }

    /// Asks for a place for a box's reboot.
    pub fn reserve(&mut self, wanted: &Reservation<'_>) -> Result<ReserveReply> {
        self.call(Script::Reserve, wanted)
    }

    /// Gives back the place of the client `id`; answers whose it was, if it had one.
    pub fn release(&mut self, id: &str) -> Result<Option<BoxName>> {
        #[derive(serde::Deserialize)]
        struct Reply {
            released: Option<BoxName>,
        }
        Ok(self.call::<Reply>(Script::Release, &json!({ "id": id }))?.released)
    }

    /// Takes back the places of boxes that have been dead for `ttl`; answers whose. Looks further apart than `look_gap`
    /// prove nothing.
    pub fn judge_reboots(&mut self, members: &Members, ttl: Duration, look_gap: Duration) -> Result<Vec<BoxName>> {
        #[derive(serde::Deserialize)]
        struct Reply {
            gone: Option<Vec<BoxName>>,
        }
        let Members { alive, failed, left, .. } = members;
        let args = json!({
            "alive": alive, "failed": failed, "left": left, "ttl": ms(ttl), "look_gap": ms(look_gap),
        });
        Ok(self.call::<Reply>(Script::Reboots, &args)?.gone.unwrap_or_default())
    }

    /// Stops the deploy `id`, or the current one. Works without the service.
    pub fn cancel(&mut self, id: Option<&str>, by: &str, reason: &str, broken: bool) -> Result<CancelReply> {
        self.call(Script::Cancel, &json!({"id": id, "by": by, "reason": reason, "broken": broken}))
    }

    // The box ------------------------------------------------------------------------------------------------------

    /// Takes the place of `name` in `deploy` and adds the `boxes` that it sees, in their `zones`; a box that is not
    /// among these stays in the zone that it had. `retry`: a person insists.
    pub fn join(
        &mut self,
        name: &BoxName,
        deploy: &str,
        boxes: &[BoxName],
        zones: &Zones,
        retry: bool,
        epoch: Option<&str>,
    ) -> Result<JoinReply> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Answer {
            Reply(JoinReply),
            /// The deploy does not know the list yet.
            Unknown {},
        }
        let mut boxes: Vec<&BoxName> = boxes.iter().collect();
        boxes.sort_unstable();
        let mut args = json!({"box": name, "deploy": deploy, "retry": retry, "epoch": epoch, "zone": zones.get(name)});
        // The list is long and nearly always known: its SHA-1, as Redis computes it, is sent first.
        let words: Vec<&str> = boxes.iter().map(|name| name.as_str()).collect();
        args["digest"] = json!(redis::Script::new(&words.join(",")).get_hash());
        if let Answer::Reply(reply) = self.call(Script::Join, &args)? {
            return Ok(reply);
        }
        args["boxes"] = json!(boxes);
        args["zones"] = json!(zones);
        self.call(Script::Join, &args)
    }

    /// Asks for a lock that lives `ttl`; `token` must be new. In a new epoch nothing is granted for `settle`.
    pub fn acquire(
        &mut self,
        name: &BoxName,
        deploy: &str,
        token: &str,
        (ttl, settle): (Duration, Duration),
        manual_run: Option<&ManualRun>,
        epoch: Option<&str>,
    ) -> Result<AcquireReply> {
        self.call(
            Script::Acquire,
            &json!({
                "box": name, "deploy": deploy, "token": token, "ttl": ms(ttl), "settle": ms(settle), "hand": manual_run, "epoch": epoch,
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
        manual_run: Option<&ManualRun>,
        surveys: &[Survey],
    ) -> Result<LeaveReply> {
        self.call(
            Script::Leave,
            &json!({
                "box": name, "deploy": deploy, "suffix": held.suffix, "token": held.token, "ttl": ms(ttl), "hand": manual_run,
                "surveys": surveys,
            }),
        )
    }

    /// Says that the worker lives and where it stands; extends what it holds.
    pub fn renew(&mut self, pulse: &RenewRequest<'_>) -> Result<RenewReply> {
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
        command.arg(self.keys.wake()).arg(wait.as_secs_f64());
        self.store.blocking::<Option<(String, String)>>(&command, wait).map(|_| ())
    }
}

/// A token that nobody else has: 128 random bits.
pub fn new_token() -> Result<String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|e| anyhow!("no randomness: {e}"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
