//! A worker on a box: the same calls in the same order as `agent::worker`, `agent::rollout` and `agent::steps`, and the
//! same decision (`agent::plan`).

use std::time::Duration;

use anyhow::{Result, anyhow};
use deployctl::{
    agent::{
        Outcome, StepError,
        plan::{Decision, Observation, Plan, Trigger, decide},
    },
    api::{Current, Kind, Phase, State},
    coordination::{
        AcquireReply, Cancel, Finish, Held, JoinReply, LeaveReply, ManualRun, ManualRunZone, Refusal, Survey,
    },
    exit::Exit,
    names::{BoxName, Tag},
};

use crate::simulation::{
    clock::ProcessId,
    fleet::{Answer, Ask, Fleet, Good, Machine, Quality, Renewal, Work, ms},
    heartbeat::Heartbeat,
    promises::Promises,
    service,
};

const SLACK: i64 = 30_000;
const ONCE: i64 = 400;
const LAST_WORD: Duration = Duration::from_secs(30);

/// Starts a worker, or leaves a mark for the one that runs.
pub fn wake(fleet: &Fleet, at: usize, trigger: Trigger) {
    let busy = fleet.machine(at, |machine| {
        machine.mark |= machine.worker.is_some() && trigger == Trigger::Heal;
        machine.worker.is_some() || !machine.up
    });
    if !busy {
        run(fleet, at, async move |fleet, process| work(&fleet, process, at, trigger).await);
    }
}

/// Runs `what` as the worker of the box, and another one when somebody has left a mark meanwhile.
fn run(fleet: &Fleet, at: usize, what: impl AsyncFnOnce(Fleet, ProcessId) -> Result<()> + 'static) {
    let process = fleet.clock.process();
    fleet.machine(at, |machine| machine.worker = Some(process));
    let theirs = fleet.clone();
    fleet.clock.spawn(process, async move {
        if let Err(error) = what(theirs.clone(), process).await {
            theirs.tell(format!("{}: its worker ends: {error:#}", theirs.name(at)));
        }
        let marked = theirs.machine(at, |machine| {
            machine.worker = None;
            std::mem::take(&mut machine.mark)
        });
        if marked {
            wake(&theirs, at, Trigger::Heal);
        }
    });
}

async fn work(fleet: &Fleet, process: ProcessId, at: usize, mut trigger: Trigger) -> Result<()> {
    for _ in 0..100 {
        fleet.machine(at, |machine| machine.mark = false);
        let mut worker = Worker::open(fleet, process, at);
        worker.assert_out().await?;
        let current = worker.current().await?;
        let Answer::Record(newest) = worker.ask_patiently(Ask::Current).await? else { unreachable!() };
        let observed = match worker.observe(current.as_ref()).await {
            Ok(observed) => observed,
            Err(error) => {
                worker.unable(current.as_ref(), &error.to_string()).await;
                return Err(error);
            }
        };
        let plan = match decide(&trigger, current.as_ref(), newest.map_or(0, |doc| doc.schema), &observed) {
            Decision::Nothing(_) => return worker.say_left_alone(current.as_ref(), &observed).await,
            Decision::Refuse(Exit::Failed, why) => {
                worker.unable(current.as_ref(), &why).await;
                return Err(anyhow!(why));
            }
            Decision::Refuse(_, why) => return Err(anyhow!(why)),
            Decision::Do(plan) => plan,
        };
        let outcome = worker.deploy(&plan).await;
        let filled = !plan.joins && !plan.locked && matches!(outcome, Outcome::Done(_));
        if !filled && !matches!(outcome, Outcome::Again) {
            return Ok(());
        }
        trigger = Trigger::Heal;
    }
    Err(anyhow!("deploys followed each other too fast"))
}

/// `deployctl out`, by a person on the box. Nothing where a worker is at it.
pub fn take_out(fleet: &Fleet, at: usize) {
    let kept =
        fleet.machine(at, |machine| machine.worker.is_some() || !machine.up || machine.journal.kept_out.is_some());
    if kept {
        return;
    }
    fleet.tell(format!("ann takes {} out", fleet.name(at)));
    run(fleet, at, async move |fleet, process| {
        let mut worker = Worker::open(&fleet, process, at);
        let plan = by_hand(&fleet, at);
        fleet.machine(at, |machine| machine.journal.kept_out = Some("disk".to_owned()));
        if let Err(error) = worker.take_out(&plan).await {
            let left = worker.is_out();
            worker.recover(&plan, error).await;
            fleet.machine(at, |machine| {
                if !left || machine.journal.work.is_none() {
                    machine.journal.kept_out = None;
                }
            });
        }
        Ok(())
    });
}

/// `deployctl in`.
pub fn bring_in(fleet: &Fleet, at: usize) {
    let (busy, kept) = fleet.machine(at, |m| (m.worker.is_some() || !m.up, m.journal.kept_out.clone()));
    let Some(kept) = kept.filter(|_| !busy) else { return };
    fleet.tell(format!("ann brings {} in", fleet.name(at)));
    run(fleet, at, async move |fleet, process| {
        let worker = Worker::open(&fleet, process, at);
        worker.assert_kept_out(&kept).await?;
        fleet.machine(at, |machine| machine.journal.kept_out = None);
        work(&fleet, process, at, Trigger::Return).await?;
        if worker.ask_out().await? { worker.return_as_it_is().await } else { Ok(()) }
    });
}

fn by_hand(fleet: &Fleet, at: usize) -> Plan {
    let tag = fleet.machine(at, |machine| machine.journal.good.as_ref().map(|good| good.tag.clone()));
    Plan {
        id: format!("hand.{}", fleet.name(at)),
        tag: tag.unwrap_or_else(|| "none".parse().unwrap()),
        kind: Kind::Manual,
        joins: false,
        locked: true,
        recreate: false,
        may_blame: false,
        retry: false,
    }
}

/// The previous tag's fate.
pub enum Back {
    Restored,
    NonePrevious,
    Failed,
}

pub struct Worker {
    pub fleet: Fleet,
    pub at: usize,
    process: ProcessId,
    name: BoxName,
    heartbeat: Option<Heartbeat>,
    floor_refusals: u32,
    not_yet: Option<String>,
    service_away_since: Option<i64>,
    /// The start failed, and the box is at fault.
    fault: Option<Fault>,
}

/// What is wrong with a box on which a good release does not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nothing works there, until it has gone back: else the proof would be false, and nobody could know.
    Everything,
    /// Its Docker engine restarted, and is back: the agent sees that, and blames nobody.
    Engine,
}

impl Worker {
    pub fn open(fleet: &Fleet, process: ProcessId, at: usize) -> Self {
        let (fleet, name) = (fleet.clone(), fleet.name(at));
        let (heartbeat, not_yet, service_away_since, fault) = (None, None, None, None);
        Self { fleet, at, process, name, heartbeat, floor_refusals: 0, not_yet, service_away_since, fault }
    }

    // What the steps share --------------------------------------------------------------------------------------------

    fn held(&self) -> Option<Held> {
        self.heartbeat.as_ref().and_then(|heartbeat| heartbeat.shared.borrow().held.clone())
    }

    pub fn is_out(&self) -> bool {
        self.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.shared.borrow().out)
    }

    fn interruption(&self) -> impl Fn() -> bool + use<> {
        let shared = self.heartbeat.as_ref().map(|heartbeat| std::rc::Rc::clone(&heartbeat.shared));
        move || {
            let Some(shared) = shared.as_ref().map(|shared| shared.borrow()) else { return false };
            let cancel = shared.cancel.as_ref();
            if shared.out {
                cancel.is_some_and(|cancel| cancel.broken || cancel.superseded)
            } else {
                cancel.is_some() || shared.ended
            }
        }
    }

    fn check_stop(&self) -> Result<(), StepError> {
        let Some(heartbeat) = &self.heartbeat else { return Ok(()) };
        let shared = heartbeat.shared.borrow();
        match shared.cancel.clone() {
            Some(cancel) if cancel.superseded => Err(StepError::Superseded),
            Some(cancel) if cancel.broken || !shared.out => Err(StepError::Cancelled(cancel)),
            _ if shared.ended && !shared.out => Err(StepError::Ended),
            _ => Ok(()),
        }
    }

    fn enter(&self, phase: Phase, within: i64) {
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.enter(phase, within);
        }
    }

    /// Does what takes time; false where it was interrupted.
    async fn takes(&self, low: i64, high: i64) -> Result<(), StepError> {
        let time = self.fleet.dice(|dice| dice.between(low, high));
        let interrupted = self.interruption();
        self.fleet.clock.until(self.fleet.now() + time, &interrupted).await;
        if interrupted() { Err(StepError::Box(anyhow!("interrupted"))) } else { Ok(()) }
    }

    /// As `retry_transient`: a box that is out is not told to stop.
    async fn ask(&self, patience: Duration, ask: Ask) -> Result<Answer> {
        self.fleet.ask(self.at, patience, &ask, &|| false).await
    }

    async fn ask_patiently(&self, ask: Ask) -> Result<Answer> {
        self.ask(self.fleet.config.command_timeout, ask).await
    }

    // Before a plan ---------------------------------------------------------------------------------------------------

    async fn assert_out(&self) -> Result<()> {
        let Some(work) = self.fleet.machine(self.at, |machine| machine.journal.work.clone()) else { return Ok(()) };
        let says = Renewal { deploy: work.deploy, out: true, ..Renewal::default() };
        self.ask_patiently(Ask::Renew(says)).await.map(drop)
    }

    async fn ask_out(&self) -> Result<bool> {
        let Answer::Truth(out) = self.ask_patiently(Ask::IsOut).await? else { unreachable!() };
        Ok(out)
    }

    async fn current(&self) -> Result<Option<Current>> {
        let (begun, mut wait, fleet) = (self.fleet.now(), 200, &self.fleet);
        let patience = ms(fleet.config.command_timeout);
        let interrupted = self.interruption();
        loop {
            match service::current(fleet, self.at).await {
                Ok(current) => return Ok(current),
                Err(error) if fleet.now() - begun + wait > patience || interrupted() => return Err(error),
                Err(_) => {}
            }
            fleet.clock.until(fleet.now() + fleet.jittered(wait), &interrupted).await;
            wait = (wait * 2).min(5000);
        }
    }

    async fn observe(&self, current: Option<&Current>) -> Result<Observation> {
        let rolling = current.map(|current| &current.deploy).filter(|deploy| deploy.state == State::Rolling);
        let out = self.ask_out().await?;
        let Answer::Record(complete) = self.ask_patiently(Ask::Complete).await? else { unreachable!() };
        let (mut row, mut done) = (None, 0);
        if let Some(deploy) = rolling {
            let Answer::Standing(phase, boxes) = self.ask_patiently(Ask::Standing(deploy.id.clone())).await? else {
                unreachable!()
            };
            (row, done) = (phase, boxes);
        }
        let (journal, container, serves) =
            self.fleet.machine(self.at, |m| (m.journal.clone(), m.container.clone(), m.serves));
        let runs_good = journal.good.as_ref().is_some_and(|good| container.as_ref() == Some(&good.tag));
        Ok(Observation {
            name: self.name.clone(),
            out: out || journal.work.is_some(),
            kept_out: journal.kept_out,
            is_new: journal.good.is_none() && container.is_none() && !serves && !out,
            // A box that joins is not asked for more.
            serves: rolling.is_none() && runs_good && serves && self.works(container.as_ref()),
            good: journal.good.map(|good| (good.tag, (good.kind == Kind::Manual).then_some(good.at))),
            row,
            proven: done > u32::from(row == Some(Phase::Done)),
            complete_at: complete.and_then(|doc| doc.ended),
        })
    }

    fn works(&self, tag: Option<&Tag>) -> bool {
        let sick = self.fleet.machine(self.at, |machine| machine.sick_until > self.fleet.now());
        !sick && tag.is_some_and(|tag| self.fleet.releases.borrow().get(tag) == Some(&Quality::Good))
    }

    async fn unable(&self, current: Option<&Current>, why: &str) {
        let rolling = current.map(|current| &current.deploy).filter(|deploy| deploy.state == State::Rolling);
        if let Some(deploy) = rolling {
            self.take_part_as(&deploy.id, Phase::Failed, why).await;
        }
    }

    async fn take_part_as(&self, id: &str, phase: Phase, why: &str) {
        let join = Ask::Join { deploy: id.to_owned(), boxes: vec![], retry: false };
        let finish = Finish { phase: Some(phase), detail: Some(why.to_owned()), ..Finish::default() };
        if self.ask(Duration::from_secs(60), join).await.is_ok() {
            let ended = Ask::Finish { deploy: id.to_owned(), held: None, finish };
            // Nobody hears of it: then the deploy waits for this box.
            let _ = self.ask(Duration::from_secs(60), ended).await;
        }
    }

    async fn assert_kept_out(&self, reason: &str) -> Result<()> {
        let (deploy, hand) = (format!("hand.{}", self.name), Some(reason.to_owned()));
        self.ask_patiently(Ask::Renew(Renewal { deploy, hand, out: true, ..Renewal::default() })).await.map(drop)
    }

    async fn return_as_it_is(&self) -> Result<()> {
        self.fleet.clock.sleep(self.fleet.dice(|dice| dice.between(500, 6000))).await;
        self.fleet.machine(self.at, Machine::comes_back);
        let finish = Finish { in_service: true, ..Finish::default() };
        let deploy = format!("hand.{}", self.name);
        self.ask_patiently(Ask::Finish { deploy, held: None, finish }).await.map(drop)
    }

    async fn say_left_alone(&self, current: Option<&Current>, observed: &Observation) -> Result<()> {
        let Some(reason) = &observed.kept_out else { return Ok(()) };
        self.assert_kept_out(reason).await?;
        if let Some(deploy) = current.map(|c| &c.deploy).filter(|deploy| deploy.state == State::Rolling) {
            self.take_part_as(&deploy.id, Phase::Cancelled, &format!("out by hand: {reason}")).await;
        }
        Ok(())
    }

    // The rollout -----------------------------------------------------------------------------------------------------

    pub async fn deploy(&mut self, plan: &Plan) -> Outcome {
        match self.roll(plan).await {
            Ok(()) => Outcome::Done(plan.tag.clone()),
            Err(error) => self.recover(plan, error).await,
        }
    }

    async fn roll(&mut self, plan: &Plan) -> Result<(), StepError> {
        self.join(plan).await?;
        self.resume(plan).await?;
        if self.runs_already(plan) {
            return Ok(self.report(plan, Phase::Done, None, true).await?);
        }
        self.pull(plan).await?;
        if plan.locked {
            loop {
                self.wait_for_lock(plan).await?;
                if !self.confirm(plan).await? {
                    continue;
                }
                self.render().await?;
                if self.leave(plan).await? {
                    break;
                }
            }
            self.drain().await?;
        }
        self.start(plan).await?;
        self.register().await?;
        self.finish(plan).await
    }

    pub async fn take_out(&mut self, plan: &Plan) -> Result<(), StepError> {
        self.join(plan).await?;
        loop {
            self.wait_for_lock(plan).await?;
            if self.leave(plan).await? {
                break;
            }
        }
        self.drain().await?;
        self.fleet.machine(self.at, |machine| machine.journal.work = None);
        Ok(self.report(plan, Phase::Cancelled, None, false).await?)
    }

    async fn join(&mut self, plan: &Plan) -> Result<(), StepError> {
        self.heartbeat = Some(Heartbeat::start(&self.fleet, self.process, self.at, &plan.id, plan.joins));
        if !plan.joins {
            return Ok(());
        }
        let boxes = self.fleet.live_boxes(self.at);
        let join = Ask::Join { deploy: plan.id.clone(), boxes, retry: plan.retry };
        let Answer::Joined(joined) = self.ask_patiently(join).await? else { unreachable!() };
        match joined {
            JoinReply::Refused { .. } | JoinReply::Seated { joined: false, .. } => Err(StepError::Ended),
            JoinReply::Seated { epoch, .. } => {
                self.tell(|shared| shared.epoch = Some(epoch));
                Ok(())
            }
        }
    }

    fn tell(&self, change: impl FnOnce(&mut crate::simulation::heartbeat::Shared)) {
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.tell(change);
        }
    }

    async fn resume(&mut self, plan: &Plan) -> Result<(), StepError> {
        if !plan.locked {
            return Ok(());
        }
        if !self.ask_out().await? {
            return Ok(());
        }
        self.wait_for_lock(plan).await?;
        let begun = self.fleet.now();
        while let Some(what) = self.not_yet.clone() {
            if self.fleet.now() - begun > ms(self.fleet.config.command_timeout) {
                return Err(StepError::NotYet(what));
            }
            self.wait_for_wake().await?;
            self.wait_for_lock(plan).await?;
        }
        Ok(())
    }

    fn runs_already(&self, plan: &Plan) -> bool {
        let runs = self.fleet.machine(self.at, |machine| {
            let good = machine.journal.good.as_ref().is_some_and(|good| good.tag == plan.tag);
            good && machine.journal.work.is_none() && machine.serves && machine.container.as_ref() == Some(&plan.tag)
        });
        runs && self.works(Some(&plan.tag))
    }

    async fn pull(&self, plan: &Plan) -> Result<(), StepError> {
        self.enter(Phase::Pulling, ms(self.fleet.config.command_timeout) + SLACK);
        if let Err(error) = self.takes(500, 8000).await {
            self.check_stop()?;
            return Err(error);
        }
        if self.fleet.releases.borrow().get(&plan.tag) == Some(&Quality::Unknown) {
            return Err(StepError::UnknownTag("manifest unknown".to_owned()));
        }
        Ok(())
    }

    async fn wait_for_lock(&mut self, plan: &Plan) -> Result<(), StepError> {
        if self.held().is_some() && self.not_yet.is_none() {
            return Ok(());
        }
        let hand = self.hand(plan);
        self.enter(Phase::Waiting, ONCE);
        let (mut waits_for, mut since) = (String::new(), self.fleet.now());
        loop {
            self.check_stop()?;
            let token = self.fleet.dice(crate::simulation::dice::Dice::hex);
            let epoch = self.heartbeat.as_ref().and_then(|heartbeat| heartbeat.shared.borrow().epoch.clone());
            let acquire = Ask::Acquire { deploy: plan.id.clone(), token: token.clone(), hand: hand.clone(), epoch };
            let Answer::Acquired(acquired) = self.ask_patiently(acquire).await? else { unreachable!() };
            match acquired {
                AcquireReply::Granted { granted, out, epoch, cancel, not_yet, over, .. } => {
                    self.tell(|shared| {
                        shared.held = Some(Held { suffix: granted, token });
                        shared.epoch = Some(epoch);
                        shared.out = out;
                        shared.cancel = cancel.clone().or(shared.cancel.take());
                    });
                    self.enter(Phase::Waiting, ms(self.fleet.config.command_timeout) + SLACK);
                    self.check_stop()?;
                    self.not_yet = not_yet;
                    return match cancel {
                        Some(cancel) => Err(StepError::Cancelled(cancel)),
                        None if over => Err(StepError::Ended),
                        None => Ok(()),
                    };
                }
                AcquireReply::Stop { stop, cancel, .. } => return Err(stopped(stop, cancel)),
                AcquireReply::Wait { wait, stands, epoch, .. } => {
                    if stands {
                        since = self.fleet.now();
                    }
                    if wait != waits_for {
                        (waits_for, since) = (wait, self.fleet.now());
                    } else if self.fleet.now() - since > ms(self.fleet.config.lock_timeout) {
                        return Err(StepError::NoLock(wait));
                    }
                    self.tell(|shared| shared.epoch = Some(epoch));
                }
            }
            self.wait_for_wake().await?;
        }
    }

    async fn wait_for_wake(&self) -> Result<(), StepError> {
        let wait = self.fleet.jittered(ms(self.fleet.config.poll_interval));
        self.fleet.wait_for_wake(self.at, wait, || self.check_stop().is_err()).await;
        self.check_stop()
    }

    async fn confirm(&mut self, plan: &Plan) -> Result<bool, StepError> {
        if !plan.joins {
            return Ok(true);
        }
        let Ok(current) = service::current(&self.fleet, self.at).await else {
            let since = *self.service_away_since.get_or_insert(self.fleet.now());
            if self.fleet.now() - since > ms(self.fleet.config.lock_timeout) {
                return Err(StepError::NoLock("the deployment service".to_owned()));
            }
            if !self.is_out() {
                self.give_back(plan).await?;
            }
            self.wait_aloud(self.fleet.jittered(ms(self.fleet.config.poll_interval))).await?;
            return Ok(false);
        };
        self.service_away_since = None;
        match current.map(|current| current.deploy) {
            Some(deploy) if deploy.id == plan.id && deploy.state == State::Rolling => Ok(true),
            _ => {
                self.check_stop()?;
                Err(StepError::Ended)
            }
        }
    }

    /// Under the lock, with Compose.
    async fn render(&self) -> Result<(), StepError> {
        self.takes(20, 1500).await
    }

    async fn wait_aloud(&self, time: i64) -> Result<(), StepError> {
        self.enter(Phase::Waiting, time + ONCE);
        self.fleet.clock.until(self.fleet.now() + time, self.interruption()).await;
        self.check_stop()
    }

    async fn leave(&mut self, plan: &Plan) -> Result<bool, StepError> {
        let Some(held) = self.held() else { return Ok(true) };
        let hand = self.hand(plan);
        let (fleet, begun, mut wait) = (self.fleet.clone(), self.fleet.now(), 200);
        let left = loop {
            // The survey is made anew each time.
            let surveys = self.survey();
            fleet.clock.sleep(fleet.dice(|dice| dice.between(10, 800))).await;
            let leave = Ask::Leave { deploy: plan.id.clone(), held: held.clone(), hand: hand.clone(), surveys };
            match fleet.ask_once(self.at, &leave).await {
                Ok(Answer::Left(left)) => break left,
                Ok(other) => unreachable!("{other:?}"),
                Err(_) if fleet.now() - begun > ms(fleet.config.command_timeout) => {
                    return Err(StepError::Box(anyhow!("Redis does not answer")));
                }
                Err(_) => fleet.clock.sleep(fleet.jittered(wait)).await,
            }
            wait = (wait * 2).min(5000);
        };
        match left {
            LeaveReply::Left { .. } => {
                self.tell(|shared| shared.out = true);
                self.fleet.machine(self.at, |machine| {
                    let started = machine.journal.work.as_ref().is_some_and(|work| work.started);
                    machine.journal.work = Some(Work { deploy: plan.id.clone(), started });
                });
                Ok(true)
            }
            LeaveReply::Refused { refused: Refusal::Floor, .. } => {
                self.give_back(plan).await?;
                let pauses = 1 << self.floor_refusals.min(2);
                self.floor_refusals += 1;
                self.wait_aloud(self.fleet.jittered(ms(self.fleet.config.poll_interval) * pauses)).await?;
                Ok(false)
            }
            LeaveReply::Refused { refused: Refusal::NotOwner | Refusal::Held, .. } => {
                self.give_back(plan).await?;
                Ok(false)
            }
            LeaveReply::Refused { refused, cancel, .. } => Err(stopped(refused, cancel)),
        }
    }

    fn survey(&self) -> Vec<Survey> {
        let machines = self.fleet.machines.borrow();
        let in_service = machines.iter().filter(|m| m.serves && m.up).map(|m| m.name.to_string()).collect();
        vec![Survey { key: "tg".to_owned(), me: self.name.to_string(), in_service }]
    }

    async fn give_back(&self, plan: &Plan) -> Result<()> {
        let Some(held) = self.held() else { return Ok(()) };
        self.rest().await;
        let finish = Finish { quiet: true, ..Finish::default() };
        self.ask_patiently(Ask::Finish { deploy: plan.id.clone(), held: Some(held), finish }).await.map(drop)
    }

    async fn rest(&self) {
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.rest().await;
        }
    }

    fn hand(&self, plan: &Plan) -> Option<ManualRun> {
        if plan.joins {
            return None;
        }
        let boxes = self.fleet.live_boxes(self.at);
        let size = u32::try_from(boxes.len()).unwrap();
        let zone = ManualRunZone::of(&self.fleet.name(self.at), &boxes, &self.fleet.zones());
        let kept_out = self.fleet.machine(self.at, |machine| machine.journal.kept_out.clone());
        let reason = kept_out.filter(|_| plan.kind == Kind::Manual);
        Some(ManualRun { size, max_parallel: self.fleet.config.max_parallel, zone, reason, purpose: None })
    }

    async fn drain(&self) -> Result<(), StepError> {
        self.enter(Phase::Draining, ms(self.fleet.config.command_timeout) + SLACK);
        Promises::goes_out(&self.fleet, self.at);
        self.takes(500, 8000).await
    }

    async fn start(&mut self, plan: &Plan) -> Result<(), StepError> {
        self.enter(Phase::Starting, 2 * ms(self.fleet.config.command_timeout) + SLACK);
        self.fleet.machine(self.at, |machine| {
            if let Some(work) = &mut machine.journal.work {
                work.started = true;
            }
            machine.container = Some(plan.tag.clone());
        });
        self.takes(1000, 20_000).await?;
        if self.works(Some(&plan.tag)) {
            Ok(())
        } else {
            let is_sick = self.fleet.machine(self.at, |machine| machine.sick_until > self.fleet.now());
            self.fault = is_sick.then(|| self.fleet.dice(|dice| dice.of(&[Fault::Everything, Fault::Engine])));
            Err(StepError::Release(format!("{} exits", plan.tag)))
        }
    }

    async fn register(&self) -> Result<(), StepError> {
        self.enter(Phase::Registering, ms(self.fleet.config.command_timeout) + SLACK);
        self.takes(500, 6000).await?;
        self.fleet.machine(self.at, Machine::comes_back);
        Ok(())
    }

    async fn finish(&mut self, plan: &Plan) -> Result<(), StepError> {
        let good = Good { tag: plan.tag.clone(), kind: plan.kind, at: self.fleet.now() };
        self.fleet.machine(self.at, |machine| {
            machine.journal.good = Some(good);
            machine.journal.work = None;
        });
        Ok(self.report(plan, Phase::Done, None, true).await?)
    }

    async fn report(&mut self, plan: &Plan, phase: Phase, detail: Option<String>, in_service: bool) -> Result<()> {
        let held = self.held();
        self.rest().await;
        let tag = self.fleet.machine(self.at, |machine| {
            if in_service {
                machine.comes_back();
            }
            machine.journal.good.as_ref().map(|good| good.tag.clone())
        });
        let finish = Finish {
            phase: plan.joins.then_some(phase),
            tag: tag.clone(),
            detail,
            in_service,
            running: tag.filter(|_| in_service),
            quiet: false,
        };
        let patience = if held.is_some() { self.fleet.config.lock_ttl } else { LAST_WORD };
        let finish = Ask::Finish { deploy: plan.id.clone(), held, finish };
        if let Answer::Remaining(Some(0)) = self.ask(patience, finish).await? {
            service::complete(&self.fleet, self.at, &plan.id).await;
        }
        Ok(())
    }

    // The way back ----------------------------------------------------------------------------------------------------

    pub async fn recover(&mut self, plan: &Plan, error: StepError) -> Outcome {
        let error = match (error, self.check_stop()) {
            (StepError::Box(_) | StepError::Release(_), Err(heard)) => heard,
            (error, _) => error,
        };
        if self.is_out() {
            return self.recover_out(plan, error).await;
        }
        let (phase, detail, outcome) = match error {
            StepError::Release(reason) => (Phase::Failed, reason.clone(), Outcome::Failed(anyhow!(reason))),
            StepError::UnknownTag(reason) => {
                if plan.may_blame {
                    self.blame(plan, &reason).await;
                }
                (Phase::Failed, reason.clone(), Outcome::Broken(reason))
            }
            StepError::Box(error) => (Phase::Failed, error.to_string(), Outcome::Failed(error)),
            StepError::Cancelled(cancel) => {
                (Phase::Cancelled, cancel.reason.clone(), Outcome::Cancelled(cancel.reason))
            }
            StepError::Superseded | StepError::NotYet(_) => {
                return match self.give_back(plan).await {
                    Ok(()) => Outcome::Again,
                    Err(error) => Outcome::Failed(error),
                };
            }
            StepError::Ended => {
                return match self.give_back(plan).await {
                    Ok(()) => Outcome::Nothing("the deploy is over".to_owned()),
                    Err(error) => Outcome::Failed(error),
                };
            }
            StepError::NoLock(what) => (Phase::Failed, format!("no lock: {what}"), Outcome::NoLock(what)),
            StepError::Rolling => return Outcome::Rolling,
            StepError::Shutdown | StepError::PowerOff => unreachable!("nobody tells it to stop"),
        };
        self.say(plan, phase, detail, false).await;
        outcome
    }

    async fn say(&mut self, plan: &Plan, phase: Phase, detail: String, in_service: bool) {
        if self.report(plan, phase, Some(detail), in_service).await.is_err() {
            self.fleet.tell(format!("{}: the deploy does not know how it ended", self.name));
        }
    }

    async fn recover_out(&mut self, plan: &Plan, error: StepError) -> Outcome {
        let started = self.fleet.machine(self.at, |m| m.journal.work.as_ref().is_some_and(|work| work.started));
        match error {
            StepError::Superseded => Outcome::Again,
            StepError::NotYet(what) => {
                let back = self.go_back(started).await;
                self.settle(plan, back, Phase::Expected, &format!("went back; waits for {what}")).await;
                Outcome::Again
            }
            StepError::Release(reason) | StepError::UnknownTag(reason) => self.recover_from_release(plan, reason).await,
            StepError::Cancelled(cancel) => {
                let back = self.go_back(started).await;
                self.settle(plan, back, Phase::RolledBack, &cancel.reason).await;
                Outcome::Cancelled(cancel.reason)
            }
            error => {
                let back = self.go_back(started).await;
                self.settle(plan, back, Phase::Failed, &error.to_string()).await;
                Outcome::Failed(anyhow!("{error}"))
            }
        }
    }

    async fn recover_from_release(&mut self, plan: &Plan, reason: String) -> Outcome {
        let blames = plan.may_blame && self.fault != Some(Fault::Engine);
        if blames {
            let hold = Ask::Hold { deploy: plan.id.clone(), wait: Duration::from_secs(150) };
            // Where that fails, other boxes may go on meanwhile.
            let _ = self.ask(Duration::from_secs(20), hold).await;
        }
        let back = self.go_back(true).await;
        let proven = blames && matches!(back, Back::Restored | Back::NonePrevious);
        let proven = proven && self.blame(plan, &reason).await;
        let phase = if proven && matches!(back, Back::Restored) { Phase::RolledBack } else { Phase::Failed };
        self.settle(plan, back, phase, &reason).await;
        if proven { Outcome::Broken(reason) } else { Outcome::Failed(anyhow!(reason)) }
    }

    async fn go_back(&self, started: bool) -> Back {
        let good = self.fleet.machine(self.at, |machine| machine.journal.good.clone());
        let Some(good) = good else { return if started { Back::NonePrevious } else { Back::Restored } };
        if !started {
            return Back::Restored;
        }
        self.enter(Phase::Starting, 2 * ms(self.fleet.config.command_timeout) + SLACK);
        self.fleet.machine(self.at, |machine| machine.container = Some(good.tag.clone()));
        let time = self.fleet.dice(|dice| dice.between(1000, 15_000));
        self.fleet.clock.sleep(time).await;
        let works = match self.fault {
            Some(fault) => fault == Fault::Engine,
            None => self.works(Some(&good.tag)),
        };
        if works { Back::Restored } else { Back::Failed }
    }

    async fn settle(&mut self, plan: &Plan, back: Back, phase: Phase, why: &str) {
        if matches!(back, Back::Restored) {
            self.enter(Phase::Registering, ms(self.fleet.config.command_timeout) + SLACK);
            let time = self.fleet.dice(|dice| dice.between(500, 6000));
            self.fleet.clock.sleep(time).await;
            self.fleet.machine(self.at, |machine| {
                machine.comes_back();
                machine.journal.work = None;
            });
            self.say(plan, phase, why.to_owned(), true).await;
        } else {
            self.fleet.tell(format!("{} STAYS OUT OF SERVICE", self.name));
            self.say(plan, Phase::Failed, format!("{why}; stays out of service"), false).await;
        }
    }

    /// Whether the blame stands.
    async fn blame(&self, plan: &Plan, reason: &str) -> bool {
        let begun = self.fleet.now();
        while self.fleet.now() - begun < 20_000 {
            if let Ok(stands) = service::broken(&self.fleet, self.at, &plan.id, reason).await {
                return stands;
            }
            self.fleet.clock.sleep(self.fleet.jittered(1000)).await;
        }
        let cancel = Ask::Cancel { deploy: plan.id.clone(), reason: reason.to_owned() };
        let _ = self.ask(Duration::from_secs(20), cancel).await;
        true
    }
}

fn stopped(refusal: Refusal, cancel: Option<Cancel>) -> StepError {
    match (refusal, cancel) {
        (_, Some(cancel)) if cancel.superseded => StepError::Superseded,
        (Refusal::Rolling, _) => StepError::Rolling,
        (_, Some(cancel)) => StepError::Cancelled(cancel),
        _ => StepError::Ended,
    }
}
