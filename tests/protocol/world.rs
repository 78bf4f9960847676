//! A Redis of the test's own, and boxes that say there what workers say.

use std::{thread, time::Duration};

use deployctl::{
    api::{Deploy, Kind, Phase, State},
    coordination::{
        AcquireReply, BeginReply, CancelReply, Coordinator, DeployRecord, EndReply, Finish, Held, JoinReply,
        LeaveReply, ManualRun, Members, RedisConnection, RenewReply, RenewRequest, Survey, Timeouts, new_token,
    },
    names::{BoxName, Place, Zones},
    secret::Secret,
};

use crate::support::{Redis, Scope, wait_for};

/// Where everything happens: `t:{staging:app}:`.
pub const BASE: &str = "t:{staging:app}:";
/// A lock that does not expire within a test.
pub const LONG: Duration = Duration::from_secs(60);
/// How long a test waits for what must happen.
pub const SOON: Duration = Duration::from_secs(10);

/// Runs `test` on a Redis of its own.
pub fn on_redis(test: impl FnOnce(&mut World)) {
    if let Some(missing) = crate::support::tools_missing(&["redis-server"]) {
        eprintln!("SKIPPED: needs {missing}; `make install-tools` installs it");
        return;
    }
    let scope = Scope::new();
    test(&mut World { redis: Redis::start(&scope) });
}

pub struct World {
    pub redis: Redis,
}

pub fn name(text: &str) -> BoxName {
    text.parse().unwrap()
}

pub fn names(texts: &[&str]) -> Vec<BoxName> {
    texts.iter().map(|text| name(text)).collect()
}

/// The deploy `id` of the tag `id`, a third at a time.
pub fn doc(id: &str) -> DeployRecord {
    DeployRecord {
        schema: 0,
        id: id.to_owned(),
        role: "app".parse().unwrap(),
        environment: "staging".parse().unwrap(),
        tag: id.parse().unwrap(),
        kind: Kind::Deploy,
        by: "ci".to_owned(),
        reason: None,
        max_parallel: "1/3".parse().unwrap(),
        recreate: false,
        force: false,
        source: None,
        state: None,
        last_good: None,
        started: None,
        ended: None,
        gated: None,
        gate_owner: None,
        steps: Vec::new(),
        step: None,
        step_since: None,
        pause: None,
        paused_for: None,
    }
}

/// Nothing times out.
pub fn patient() -> Timeouts {
    Timeouts { interval: LONG, ttl: LONG, silence: LONG, join: LONG, lock: LONG, deploy: LONG, look_gap: LONG }
}

pub fn hand(size: u32) -> ManualRun {
    ManualRun { size, max_parallel: "1/3".parse().unwrap(), zone: None, reason: None, purpose: None }
}

pub fn alive(boxes: &[&str]) -> Members {
    Members { alive: names(boxes), ..Members::default() }
}

impl World {
    /// A connection of its own.
    pub fn locks(&self) -> Coordinator {
        let place = Place { environment: "staging".parse().unwrap(), role: "app".parse().unwrap() };
        Coordinator::new(RedisConnection::new(&Secret::new(self.redis.url()), "t").unwrap(), &place)
    }

    /// Starts `id` on `boxes`, with `max_parallel`.
    pub fn begin(&self, id: &str, boxes: &[&str], max_parallel: &str) {
        let begun = self.try_begin(id, boxes, max_parallel, false);
        assert!(matches!(begun, BeginReply::Rolling { .. }), "{begun:?}");
    }

    /// Starts `id` in the place of the one that rolls.
    pub fn supersede(&self, id: &str, boxes: &[&str]) {
        let begun = self.try_begin(id, boxes, "1/3", true);
        assert!(matches!(begun, BeginReply::Rolling { .. }), "{begun:?}");
    }

    pub fn try_begin(&self, id: &str, boxes: &[&str], max_parallel: &str, supersede: bool) -> BeginReply {
        let doc = DeployRecord { max_parallel: max_parallel.parse().unwrap(), ..doc(id) };
        self.locks().begin(&doc, &names(boxes), &Zones::new(), supersede, false, None).unwrap()
    }

    /// A worker of `name` in `deploy` that has joined.
    pub fn worker(&self, name: &str, deploy: &str) -> Worker {
        let mut worker = self.stranger(name, deploy);
        let joined = worker.join();
        assert!(matches!(joined, JoinReply::Seated { joined: true, .. }), "{name}: {joined:?}");
        worker
    }

    /// A worker of `name` in `deploy` that has not joined yet.
    pub fn stranger(&self, name: &str, deploy: &str) -> Worker {
        Worker {
            locks: self.locks(),
            name: self::name(name),
            deploy: deploy.to_owned(),
            held: None,
            ttl: LONG,
            epoch: None,
        }
    }

    pub fn cancel(&self, broken: bool) -> CancelReply {
        self.locks().cancel(None, "ann", "enough", broken).unwrap()
    }

    /// The service looks at `id`.
    pub fn look(&self, id: &str, members: &Members, patience: &Timeouts) -> EndReply {
        self.locks().end(id, members, patience).unwrap()
    }

    /// The service looks until `id` has ended.
    #[track_caller]
    pub fn look_until_ended(&self, id: &str, members: &Members, patience: &Timeouts) -> EndReply {
        wait_for(SOON, &format!("{id} ends"), || {
            let ended = self.look(id, members, patience);
            if ended.ended { Ok(ended) } else { Err(format!("{ended:?} {:?}", self.deploy(id))) }
        })
    }

    pub fn deploy(&self, id: &str) -> Deploy {
        self.locks().deploy(id).unwrap().unwrap()
    }

    pub fn state(&self, id: &str) -> State {
        self.deploy(id).state
    }

    pub fn phase(&self, id: &str, name: &str) -> Phase {
        self.deploy(id).boxes.iter().find(|row| row.name.as_str() == name).unwrap().phase
    }

    /// `remaining` as it stands in Redis; it must be what the table says.
    #[track_caller]
    pub fn remaining(&self, id: &str) -> u32 {
        let stored: u32 = self.redis.command(&["GET", &format!("{BASE}deploy:{id}:remaining")]).parse().unwrap();
        let rows = self.deploy(id).boxes;
        let counted = rows.iter().filter(|row| row.phase.is_unfinished()).count();
        assert_eq!(stored as usize, counted, "remaining is not what the table says: {rows:?}");
        stored
    }

    /// Who is out, by name.
    pub fn out(&self) -> Vec<String> {
        self.locks().locks().unwrap().out.iter().map(|row| row.name.to_string()).collect()
    }

    /// Who holds which lock.
    pub fn holders(&self) -> Vec<(u32, String)> {
        self.locks().locks().unwrap().locks.iter().map(|row| (row.suffix, row.name.to_string())).collect()
    }

    pub fn wakes(&self) -> usize {
        self.redis.command_count(&["LLEN", &format!("{BASE}wake")])
    }

    /// Waits until nobody holds the lock `suffix`.
    #[track_caller]
    pub fn wait_expired(&self, suffix: u32) {
        self.redis.wait_value(SOON, &format!("{BASE}lock:{suffix}"), "");
    }
}

impl Redis {
    pub fn command_count(&self, words: &[&str]) -> usize {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut self.connection()).unwrap()
    }
}

/// What one box says; `held` is what it believes to hold.
pub struct Worker {
    pub locks: Coordinator,
    pub name: BoxName,
    pub deploy: String,
    pub held: Option<Held>,
    pub ttl: Duration,
    pub epoch: Option<String>,
}

impl Worker {
    pub fn join(&mut self) -> JoinReply {
        self.join_with(&[], false)
    }

    pub fn join_with(&mut self, boxes: &[&str], retry: bool) -> JoinReply {
        let joined = self
            .locks
            .join(&self.name, &self.deploy, &names(boxes), &Zones::new(), retry, self.epoch.as_deref())
            .unwrap();
        if let JoinReply::Seated { epoch, .. } = &joined {
            self.epoch = Some(epoch.clone());
        }
        joined
    }

    pub fn acquire(&mut self) -> AcquireReply {
        self.acquire_with(Duration::ZERO, None)
    }

    pub fn acquire_with(&mut self, settle: Duration, hand: Option<&ManualRun>) -> AcquireReply {
        let token = new_token().unwrap();
        let times = (self.ttl, settle);
        let acquired =
            self.locks.acquire(&self.name, &self.deploy, &token, times, hand, self.epoch.as_deref()).unwrap();
        if let AcquireReply::Granted { granted, epoch, .. } = &acquired {
            self.held = Some(Held { suffix: *granted, token });
            self.epoch = Some(epoch.clone());
        }
        acquired
    }

    /// Whether it got a lock.
    pub fn gets_lock(&mut self) -> bool {
        matches!(self.acquire(), AcquireReply::Granted { .. })
    }

    /// Takes a lock and leaves the load balancers.
    #[track_caller]
    pub fn go_out(&mut self) {
        let acquired = self.acquire();
        assert!(matches!(acquired, AcquireReply::Granted { .. }), "{}: {acquired:?}", self.name);
        let left = self.leave();
        assert!(matches!(left, LeaveReply::Left { .. }), "{}: {left:?}", self.name);
    }

    pub fn leave(&mut self) -> LeaveReply {
        self.leave_with(None, &[])
    }

    pub fn leave_with(&mut self, hand: Option<&ManualRun>, surveys: &[Survey]) -> LeaveReply {
        let held = self.held.clone().expect("a lock");
        self.locks.leave(&self.name, &self.deploy, &held, self.ttl, hand, surveys).unwrap()
    }

    /// Renews, in `phase` if it works.
    pub fn renew(&mut self, phase: Option<Phase>, out: bool) -> RenewReply {
        let renewal = RenewRequest {
            name: &self.name,
            deploy: &self.deploy,
            phase,
            detail: None,
            suffix: self.held.as_ref().map(|held| held.suffix),
            token: self.held.as_ref().map(|held| held.token.as_str()),
            ttl: u64::try_from(self.ttl.as_millis()).unwrap(),
            out,
            kept_out_reason: None,
            purpose: None,
            epoch: self.epoch.as_deref(),
        };
        let pulse = self.locks.renew(&renewal).unwrap();
        self.epoch = Some(pulse.epoch.clone());
        pulse
    }

    /// Ends its part, in service or not, and forgets its lock.
    pub fn finish(&mut self, phase: Phase, in_service: bool) -> Option<u32> {
        let finish = Finish { phase: Some(phase), in_service, ..Finish::default() };
        let held = self.held.take();
        self.locks.finish(&self.name, &self.deploy, held.as_ref(), &finish).unwrap()
    }

    /// Gives the lock back without a result, and wakes nobody.
    pub fn give_back(&mut self) {
        let held = self.held.take();
        let finish = Finish { in_service: true, quiet: true, ..Finish::default() };
        self.locks.finish(&self.name, &self.deploy, held.as_ref(), &finish).unwrap();
    }

    pub fn hold(&mut self, wait: Duration) {
        self.locks.hold(&self.name, &self.deploy, wait).unwrap();
    }

    pub fn lift_hold(&mut self) {
        self.hold(Duration::ZERO);
    }

    /// The whole way of a box on which all goes well.
    #[track_caller]
    pub fn complete(&mut self) {
        self.go_out();
        self.finish(Phase::Done, true);
    }

    /// Waits for a wake-up on a thread of its own; gives how long it took.
    pub fn waits(mut self, wait: Duration) -> thread::JoinHandle<Duration> {
        thread::spawn(move || {
            let start = std::time::Instant::now();
            self.locks.wait_for_wake(wait).unwrap();
            start.elapsed()
        })
    }
}
