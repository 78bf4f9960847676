//! The boxes, what connects them with Redis and the service, and what they say there.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    ops::Deref,
    rc::Rc,
    time::Duration,
};

use anyhow::{Result, anyhow};
use deployctl::{
    api::{Kind, Phase},
    config::Config,
    coordination::{
        AcquireReply, Coordinator, DeployRecord, Finish, Held, JoinReply, LeaveReply, ManualRun, RenewReply,
        RenewRequest, Survey,
    },
    names::{BoxName, Place, Tag, ZoneName, Zones},
};

use crate::simulation::{
    clock::{Clock, ProcessId, TaskId},
    dice::Dice,
    promises::Promises,
    server::{self, Mode},
    service::Services,
};

/// How long a client waits for an answer.
pub const ANSWER: i64 = 5000;
/// How long Serf takes to miss an agent.
const MISSED: i64 = 8000;

/// What a release is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    Good,
    /// Its container fails, on every box.
    Bad,
    /// The registry does not know it.
    Unknown,
}

#[derive(Debug, Clone)]
pub struct Good {
    pub tag: Tag,
    pub kind: Kind,
    pub at: i64,
}

#[derive(Debug, Clone)]
pub struct Work {
    pub deploy: String,
    pub started: bool,
}

/// What a box remembers across crashes.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    pub good: Option<Good>,
    pub work: Option<Work>,
    pub kept_out: Option<String>,
}

#[allow(clippy::struct_excessive_bools, reason = "each is true or not by itself")]
#[derive(Debug, Clone)]
pub struct Machine {
    pub name: BoxName,
    /// The machine runs.
    pub up: bool,
    /// Since when its Serf agent runs or does not.
    pub agent: bool,
    pub agent_since: i64,
    /// It said that it goes.
    pub left: bool,
    /// What its container is made of, and whether that works.
    pub container: Option<Tag>,
    /// Load balancers send it requests.
    pub serves: bool,
    /// A person or a deploy took it out, and it is not back; in truth, whatever Redis believes.
    pub out: bool,
    /// Redis said yes, and it is on its way.
    pub leaving: bool,
    /// Out, and by the rules no longer counted.
    pub excused: bool,
    /// Its Docker engine fails.
    pub sick_until: i64,
    /// No message gets through between it and Redis and the service.
    pub cut_until: i64,
    /// Messages take long, or get lost.
    pub bad_line_until: i64,
    /// When Redis last did what its worker asked.
    pub spoke: i64,
    pub journal: Journal,
    pub mark: bool,
    pub worker: Option<ProcessId>,
}

impl Machine {
    fn new(name: BoxName, tag: &Tag) -> Self {
        Self {
            name,
            up: true,
            agent: true,
            agent_since: 0,
            left: false,
            container: Some(tag.clone()),
            serves: true,
            out: false,
            leaving: false,
            excused: false,
            sick_until: 0,
            cut_until: 0,
            bad_line_until: 0,
            spoke: 0,
            journal: Journal {
                good: Some(Good { tag: tag.clone(), kind: Kind::Deploy, at: 0 }),
                work: None,
                kept_out: None,
            },
            mark: false,
            worker: None,
        }
    }

    pub fn comes_back(&mut self) {
        (self.serves, self.out, self.leaving, self.excused) = (true, false, false, false);
    }

    pub fn is_alive(&self) -> bool {
        self.up && self.agent
    }
}

/// What a box asks Redis, in the words of the real client.
#[derive(Debug, Clone)]
pub enum Ask {
    Current,
    Complete,
    IsOut,
    Standing(String),
    Join { deploy: String, boxes: Vec<BoxName>, retry: bool },
    Acquire { deploy: String, token: String, hand: Option<ManualRun>, epoch: Option<String> },
    Leave { deploy: String, held: Held, hand: Option<ManualRun>, surveys: Vec<Survey> },
    Renew(Renewal),
    Finish { deploy: String, held: Option<Held>, finish: Finish },
    Hold { deploy: String, wait: Duration },
    Cancel { deploy: String, reason: String },
}

#[derive(Debug, Clone, Default)]
pub struct Renewal {
    pub deploy: String,
    pub phase: Option<Phase>,
    pub detail: Option<String>,
    pub held: Option<Held>,
    pub out: bool,
    pub hand: Option<String>,
    pub epoch: Option<String>,
}

#[allow(clippy::large_enum_variant, reason = "few exist at a time")]
#[derive(Debug, Clone)]
pub enum Answer {
    Record(Option<DeployRecord>),
    Truth(bool),
    Standing(Option<Phase>, u32),
    Joined(JoinReply),
    Acquired(AcquireReply),
    Left(LeaveReply),
    Renewed(RenewReply),
    Remaining(Option<u32>),
    Fine,
}

/// Why a message had no answer: it may come another time.
pub struct NoAnswer;

/// A box that waits for a wake-up.
struct Waiter {
    woken: Rc<Cell<bool>>,
    task: TaskId,
    at: usize,
}

pub struct World {
    pub clock: Clock,
    pub dice: RefCell<Dice>,
    pub machines: RefCell<Vec<Machine>>,
    pub config: Config,
    pub releases: RefCell<BTreeMap<Tag, Quality>>,
    pub services: Services,
    pub promises: RefCell<Promises>,
    /// No more trouble.
    pub calm: Cell<bool>,
    /// In how many zones the boxes are; 0: in none.
    zones: usize,
    /// Every message takes this much longer.
    pub slow_until: Cell<i64>,
    /// What boxes ask Redis and what it answers belongs to the story.
    talks: bool,
    locks: RefCell<Coordinator>,
    waiters: RefCell<VecDeque<Waiter>>,
    story: RefCell<Vec<String>>,
    broken: RefCell<Option<String>>,
}

/// Everybody has it.
#[derive(Clone)]
pub struct Fleet(Rc<World>);

impl Deref for Fleet {
    type Target = World;

    fn deref(&self) -> &World {
        &self.0
    }
}

pub fn config() -> Config {
    let text = r#"{
        "lock_ttl": "60s", "poll_interval": "5s", "lock_timeout": "20m", "command_timeout": "2m", "redis_prefix": "m",
        "service": { "join_timeout": "5m", "roles": { "app": {
            "environments": ["staging"], "auto_rollback": true, "deploy_timeout": "1h"
        } } }
    }"#;
    Config::parse(text).unwrap()
}

pub fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap()
}

impl Fleet {
    pub fn new(seed: u64, size: usize, tag: &Tag) -> Self {
        let place = Place { environment: "staging".parse().unwrap(), role: "app".parse().unwrap() };
        let machine = |at| Machine::new(format!("box-{}", at + 1).parse().unwrap(), tag);
        Self(Rc::new(World {
            clock: Clock::new(),
            dice: RefCell::new(Dice::new(seed)),
            machines: RefCell::new((0..size).map(machine).collect()),
            locks: RefCell::new(Coordinator::new(server::address().connection(), &place)),
            config: config(),
            releases: RefCell::new([(tag.clone(), Quality::Good)].into()),
            services: Services::default(),
            promises: RefCell::new(Promises::default()),
            calm: Cell::new(false),
            // A fifth of the seeds.
            zones: if seed % 5 == 4 { 2 + size % 2 } else { 0 },
            slow_until: Cell::new(0),
            talks: std::env::var_os("TALK").is_some(),
            waiters: RefCell::default(),
            story: RefCell::default(),
            broken: RefCell::default(),
        }))
    }

    pub fn now(&self) -> i64 {
        self.clock.now()
    }

    pub fn dice<T>(&self, throw: impl FnOnce(&mut Dice) -> T) -> T {
        throw(&mut self.dice.borrow_mut())
    }

    pub fn machine<T>(&self, at: usize, look: impl FnOnce(&mut Machine) -> T) -> T {
        look(&mut self.machines.borrow_mut()[at])
    }

    pub fn name(&self, at: usize) -> BoxName {
        self.machine(at, |machine| machine.name.clone())
    }

    pub fn size(&self) -> usize {
        self.machines.borrow().len()
    }

    /// 75 to 125 % of `time`.
    pub fn jittered(&self, time: i64) -> i64 {
        self.dice(|dice| dice.between(time * 3 / 4, time * 5 / 4))
    }

    // The story -------------------------------------------------------------------------------------------------------

    pub fn tell(&self, what: impl Into<String>) {
        let time = self.now() - crate::model::memory::BEGIN;
        let (seconds, tenths) = (time / 1000, time % 1000 / 100);
        self.story.borrow_mut().push(format!("{seconds:>6}.{tenths} {}", what.into()));
    }

    /// A rule is broken: the first one counts.
    pub fn breaks(&self, rule: impl Into<String>) {
        let rule = rule.into();
        self.tell(format!("BROKEN: {rule}"));
        self.broken.borrow_mut().get_or_insert(rule);
    }

    pub fn broken(&self) -> Option<String> {
        self.broken.borrow().clone()
    }

    pub fn story(&self) -> Vec<String> {
        self.story.borrow().clone()
    }

    // Serf ------------------------------------------------------------------------------------------------------------

    /// What an agent that sees everything says of a box: alive, failed or left.
    pub fn serf(&self, at: usize) -> &'static str {
        self.machine(at, |machine| match () {
            () if machine.is_alive() => "alive",
            () if machine.left => "left",
            () if self.now() < machine.agent_since + MISSED => "alive",
            () => "failed",
        })
    }

    /// The zone of a box: every fifth box has none.
    pub fn zone(&self, at: usize) -> Option<ZoneName> {
        (self.zones > 0 && at % 5 < 4).then(|| format!("zone-{}", at % self.zones).parse().unwrap())
    }

    /// The zone of each box.
    pub fn zones(&self) -> Zones {
        (0..self.size()).filter_map(|at| Some((self.name(at), self.zone(at)?))).collect()
    }

    /// The live boxes as the agent of the box `at` sees them; itself always among them.
    pub fn live_boxes(&self, at: usize) -> Vec<BoxName> {
        let is_cut = self.machine(at, |machine| machine.cut_until > self.now());
        let alive = |other: &usize| *other == at || !is_cut && self.serf(*other) == "alive";
        (0..self.size()).filter(alive).map(|other| self.name(other)).collect()
    }

    // Redis -----------------------------------------------------------------------------------------------------------

    /// How long a message takes, one way; nothing when it does not arrive.
    pub fn latency(&self, at: usize) -> Option<i64> {
        let (cut, bad) = self.machine(at, |m| (m.cut_until - self.now(), m.bad_line_until > self.now()));
        let slow = if self.slow_until.get() > self.now() { 3000 } else { 0 };
        self.dice(|dice| {
            // TCP sends again: what was on its way when the line broke may arrive when it is mended.
            if cut > 0 {
                return dice.percent(30).then(|| cut + dice.between(0, 2000));
            }
            if bad {
                let most = if dice.percent(20) { 15_000 } else { 2000 };
                return (!dice.percent(25)).then(|| dice.between(1, most));
            }
            Some(dice.between(1, 20) + dice.between(0, slow))
        })
    }

    /// Sends one question and waits for its answer. What has no answer in time may be done all the same, later.
    pub async fn ask_once(&self, at: usize, ask: &Ask) -> Result<Answer, NoAnswer> {
        let slot: Rc<RefCell<Option<Result<Answer, NoAnswer>>>> = Rc::default();
        let deadline = self.now() + ANSWER;
        if let Some(there) = self.latency(at) {
            let (fleet, slot, ask, caller) = (self.clone(), Rc::clone(&slot), ask.clone(), self.clock.running());
            self.clock.spawn(0, async move {
                fleet.clock.sleep(there).await;
                let answer = fleet.execute(at, &ask);
                if let Some(back) = fleet.latency(at) {
                    fleet.clock.sleep(back).await;
                    *slot.borrow_mut() = Some(answer);
                    fleet.clock.wake(caller);
                }
            });
        }
        self.clock.until(deadline, || slot.borrow().is_some()).await;
        slot.borrow_mut().take().unwrap_or(Err(NoAnswer))
    }

    /// Redis does it, if it is there.
    fn execute(&self, at: usize, ask: &Ask) -> Result<Answer, NoAnswer> {
        if server::mode() == Mode::Down {
            return Err(NoAnswer);
        }
        let name = self.name(at);
        self.promises.borrow_mut().before(self);
        let answer = self.run(&name, ask);
        if self.talks {
            let heard = answer.as_ref().map_or_else(|error| format!("{error:#}"), |answer| format!("{answer:?}"));
            self.tell(format!("    {name}: {ask:?} => {heard}"));
        }
        if let Ok(answer) = &answer {
            self.promises.borrow_mut().after_box(self, at, ask, answer);
        }
        self.wake_waiters();
        answer.map_err(|error| {
            let passes = deployctl::coordination::RedisError::is_transient(&error);
            if !passes {
                self.breaks(format!("{name} {ask:?}: {error:#}"));
            }
            NoAnswer
        })
    }

    fn run(&self, name: &BoxName, ask: &Ask) -> Result<Answer> {
        let locks = &mut *self.locks.borrow_mut();
        let (ttl, settle) = (self.config.lock_ttl, 3 * self.config.renew_interval());
        Ok(match ask.clone() {
            Ask::Current => Answer::Record(locks.current()?),
            Ask::Complete => Answer::Record(locks.complete()?),
            Ask::IsOut => Answer::Truth(locks.is_out(name)?),
            Ask::Standing(deploy) => {
                let (row, done) = locks.standing(&deploy, name)?;
                Answer::Standing(row, done)
            }
            Ask::Join { deploy, boxes, retry } => {
                Answer::Joined(locks.join(name, &deploy, &boxes, &self.zones(), retry, None)?)
            }
            Ask::Acquire { deploy, token, hand, epoch } => Answer::Acquired(locks.acquire(
                name,
                &deploy,
                &token,
                (ttl, settle),
                hand.as_ref(),
                epoch.as_deref(),
            )?),
            Ask::Leave { deploy, held, hand, surveys } => {
                Answer::Left(locks.leave(name, &deploy, &held, ttl, hand.as_ref(), &surveys)?)
            }
            Ask::Renew(says) => Answer::Renewed(locks.renew(&RenewRequest {
                name,
                deploy: &says.deploy,
                phase: says.phase,
                detail: says.detail.as_deref(),
                suffix: says.held.as_ref().map(|held| held.suffix),
                token: says.held.as_ref().map(|held| held.token.as_str()),
                ttl: u64::try_from(ttl.as_millis())?,
                out: says.out,
                kept_out_reason: says.hand.as_deref(),
                purpose: None,
                epoch: says.epoch.as_deref(),
            })?),
            Ask::Finish { deploy, held, finish } => {
                Answer::Remaining(locks.finish(name, &deploy, held.as_ref(), &finish)?)
            }
            Ask::Hold { deploy, wait } => {
                locks.hold(name, &deploy, wait)?;
                Answer::Fine
            }
            Ask::Cancel { deploy, reason } => {
                locks.cancel(Some(&deploy), name.as_str(), &reason, true)?;
                Answer::Fine
            }
        })
    }

    /// Asks again while there is no answer, each time after twice the wait, for `patience` at most.
    pub async fn ask(
        &self,
        at: usize,
        patience: Duration,
        ask: &Ask,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Answer> {
        let (begun, mut wait) = (self.now(), 200);
        loop {
            if let Ok(answer) = self.ask_once(at, ask).await {
                return Ok(answer);
            }
            let time = self.jittered(wait);
            if self.now() - begun + time > ms(patience) || interrupted() {
                return Err(anyhow!("Redis does not answer"));
            }
            self.clock.until(self.now() + time, interrupted).await;
            if interrupted() {
                return Err(anyhow!("Redis does not answer"));
            }
            wait = (wait * 2).min(5000);
        }
    }

    /// BLPOP: waits for a wake-up, `wait` at most. Ends when `stop` is true after a wake-up of the task.
    pub async fn wait_for_wake(&self, at: usize, wait: i64, stop: impl Fn() -> bool) {
        let deadline = self.now() + wait;
        match self.latency(at) {
            Some(there) if server::mode() != Mode::Down => {
                self.clock.until((self.now() + there).min(deadline), &stop).await;
                let woken = Rc::new(Cell::new(false));
                let waiter = Waiter { woken: Rc::clone(&woken), task: self.clock.running(), at };
                self.waiters.borrow_mut().push_back(waiter);
                self.wake_waiters();
                self.clock.until(deadline, || woken.get() || stop()).await;
                self.waiters.borrow_mut().retain(|waiter| !Rc::ptr_eq(&waiter.woken, &woken));
            }
            _ => self.clock.until(self.now() + wait.min(1000), stop).await,
        }
    }

    /// Hands the wake-ups in Redis to who waits, the longest first. One whose box is cut off takes it all the same.
    pub fn wake_waiters(&self) {
        let key = format!("{}wake", base());
        loop {
            // Those that were killed are gone.
            self.waiters.borrow_mut().retain(|waiter| Rc::strong_count(&waiter.woken) > 1);
            let first = self.waiters.borrow().front().map(|waiter| (waiter.task, waiter.at));
            let Some((task, at)) = first else { return };
            if server::mode() != Mode::Serves {
                return;
            }
            let words = ["LPOP", &key, "1"].map(str::to_owned);
            if server::memory(|memory| memory.call(&words)) == crate::model::memory::Reply::Nothing {
                return;
            }
            let waiter = self.waiters.borrow_mut().pop_front().unwrap();
            if self.latency(at).is_some() {
                waiter.woken.set(true);
                self.clock.wake(task);
            }
        }
    }
}

/// What the keys of the place begin with.
pub fn base() -> String {
    format!("{}:{{staging:app}}:", server::PREFIX)
}

/// The last lines of a story, for people.
pub fn shown(seed: u64, story: &[String], most: usize) -> String {
    let mut text = format!("seed {seed}:\n");
    let skipped = story.len().saturating_sub(most);
    if skipped > 0 {
        let _ = writeln!(text, "  … {skipped} lines before");
    }
    for line in &story[skipped..] {
        let _ = writeln!(text, "  {line}");
    }
    text
}
