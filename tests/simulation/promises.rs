//! What must be so: looked at before and after everything that Redis does.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    rc::Rc,
};

use deployctl::{
    api::Phase,
    coordination::{AcquireReply, JoinReply, LeaveReply},
    parallel::MaxParallel,
};
use serde_json::Value as Json;

use crate::{
    model::memory::Memory,
    simulation::{
        fleet::{Answer, Ask, Fleet, Quality, base, ms},
        server::{self, PREFIX},
    },
};

/// A JSON text and what it says.
#[derive(Debug, Clone)]
pub struct Said(String, Rc<Json>);

impl Default for Said {
    fn default() -> Self {
        Self(String::new(), Rc::new(Json::Null))
    }
}

impl Deref for Said {
    type Target = Json;

    fn deref(&self) -> &Json {
        &self.1
    }
}

impl Said {
    /// What `text` says: most often what it said before.
    fn read(text: Option<&String>, before: Option<&Self>) -> Self {
        match (text, before) {
            (None, _) => Self::default(),
            (Some(text), Some(before)) if before.0 == *text => before.clone(),
            (Some(text), _) => Self(text.clone(), Rc::new(serde_json::from_str(text).unwrap())),
        }
    }
}

/// What stands in Redis, as far as rules are about it.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    version: u64,
    pub current: Said,
    pub queued: Said,
    /// Suffix → box and token.
    pub locks: BTreeMap<String, (String, String)>,
    lock_texts: BTreeMap<String, Said>,
    pub out: BTreeMap<String, Said>,
    /// Those of the current deploy.
    pub rows: BTreeMap<String, Phase>,
    pub cancel: Said,
    pub holds: BTreeMap<String, i64>,
    pub epoch: Said,
}

fn json(text: Option<&String>) -> Json {
    text.map_or(Json::Null, |text| serde_json::from_str(text).unwrap())
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap_or_default()
}

/// The phase of a row, without reading the rest.
fn phase(row: &str) -> Phase {
    let (_, rest) = row.split_once("\"phase\":\"").unwrap();
    let word = rest.split('"').next().unwrap();
    *Phase::ALL.iter().find(|phase| phase.as_str() == word).unwrap()
}

impl Standing {
    /// What stands there now; the same as `before` where nothing was written since.
    fn read(memory: &Memory, before: &Rc<Self>) -> Rc<Self> {
        if memory.version == before.version && memory.version > 0 {
            return Rc::clone(before);
        }
        let base = base();
        let key = |name: &str| format!("{base}{name}");
        let current = Said::read(memory.get(&key("current")), Some(&before.current));
        let of = |part: &str| key(&format!("deploy:{}:{part}", text(&current["id"])));
        let (mut locks, mut lock_texts) = (BTreeMap::new(), BTreeMap::new());
        for (name, suffix) in memory.hash(&key("holders")) {
            if let Some(lock) = memory.get(&key(&format!("lock:{suffix}"))) {
                let lock = Said::read(Some(lock), before.lock_texts.get(suffix));
                if lock["box"] == name.as_str() {
                    locks.insert(suffix.clone(), (name.clone(), text(&lock["token"]).to_owned()));
                }
                lock_texts.insert(suffix.clone(), lock);
            }
        }
        let out_key = key("out");
        let out = memory.hash(&out_key);
        Rc::new(Self {
            version: memory.version,
            queued: Said::read(memory.get(&key("queued")), Some(&before.queued)),
            locks,
            lock_texts,
            out: out.map(|(name, entry)| (name.clone(), Said::read(Some(entry), before.out.get(name)))).collect(),
            rows: memory.hash(&of("boxes")).map(|(name, row)| (name.clone(), phase(row))).collect(),
            cancel: Said::read(memory.get(&of("cancel")), Some(&before.cancel)),
            holds: memory.hash(&of("hold")).map(|(name, until)| (name.clone(), until.parse().unwrap())).collect(),
            epoch: Said::read(memory.get(&key("epoch")), Some(&before.epoch)),
            current,
        })
    }

    pub fn id(&self) -> &str {
        text(&self.current["id"])
    }

    pub fn rolls(&self) -> bool {
        self.current["state"] == "rolling"
    }

    fn size(&self) -> u32 {
        u32::try_from(self.rows.values().filter(|phase| **phase != Phase::Gone).count()).unwrap()
    }

    fn locks_for(&self, size: u32) -> u32 {
        let share: MaxParallel = text(&self.current["max_parallel"]).parse().unwrap_or_default();
        share.locks(size)
    }

    /// Whether an entry of `out` counts: to the end of the deploy that took the box out, and then until its TTL has passed.
    fn counts(&self, now: i64, name: &str, entry: &Said) -> bool {
        if entry["hand"].is_string() {
            return !self.rolls() || self.rows.get(name) != Some(&Phase::Gone);
        }
        self.rolls() && entry["deploy"] == self.current["id"]
            || now < entry["renewed"].as_i64().unwrap() + entry["ttl"].as_i64().unwrap()
    }

    fn held_by_another(&self, now: i64, name: &str) -> bool {
        self.holds.iter().any(|(other, until)| other != name && now < *until)
    }
}

#[derive(Default)]
pub struct Promises {
    before: Rc<Standing>,
    /// The tokens of each box that have ended, the last ones.
    ended_tokens: BTreeMap<String, Vec<String>>,
    /// How deploys ended.
    ended: BTreeMap<String, String>,
    begun: BTreeMap<String, (i64, u32)>,
    /// When something was queued.
    queued: BTreeMap<String, i64>,
    last_begin: i64,
    /// Deploys in which boxes were called gone by silence.
    silenced: BTreeMap<String, u32>,
    /// Redis lost data at this time.
    pub lost_data: i64,
}

impl Promises {
    /// Something is about to happen.
    pub fn before(&mut self, _: &Fleet) {
        self.before = server::memory(|memory| Standing::read(memory, &self.before));
    }

    /// Redis came back with older data, or with none.
    pub fn redis_forgot(&mut self, fleet: &Fleet) {
        let now = server::memory(|memory| Standing::read(memory, &Rc::default()));
        for machine in fleet.machines.borrow_mut().iter_mut() {
            machine.excused |= (machine.out || machine.leaving) && !now.out.contains_key(machine.name.as_str());
        }
        self.ended_tokens.clear();
        self.ended.clear();
        self.lost_data = fleet.now();
    }

    /// A box begins to leave its load balancers.
    pub fn goes_out(fleet: &Fleet, at: usize) {
        fleet.machine(at, |machine| {
            (machine.out, machine.leaving, machine.serves) = (true, false, false);
        });
    }

    /// A box asked something.
    pub fn after_box(&mut self, fleet: &Fleet, at: usize, ask: &Ask, answer: &Answer) {
        if matches!(ask, Ask::Current | Ask::Complete | Ask::IsOut | Ask::Standing(_)) {
            return;
        }
        let after = server::memory(|memory| Standing::read(memory, &self.before));
        let (before, name) = (std::mem::replace(&mut self.before, Rc::clone(&after)), fleet.name(at).to_string());
        match (ask, answer) {
            (Ask::Acquire { deploy, hand, .. }, Answer::Acquired(AcquireReply::Granted { out: false, .. })) => {
                fleet.machine(at, |machine| machine.spoke = fleet.now());
                check_grant(fleet, &before, at, &name, deploy, hand.is_some());
            }
            // Who speaks of a deploy that is over is not heard of in the one that rolls.
            (Ask::Acquire { .. }, Answer::Acquired(AcquireReply::Stop { .. })) => {}
            (Ask::Acquire { .. }, _) => fleet.machine(at, |machine| machine.spoke = fleet.now()),
            (Ask::Leave { hand, surveys, .. }, Answer::Left(LeaveReply::Left { .. })) => {
                let size = hand.as_ref().map_or(before.size(), |hand| hand.size);
                if !before.out.contains_key(&name) {
                    check_leave(fleet, &before, at, &name, size, hand.is_some(), surveys);
                }
                fleet.machine(at, |machine| {
                    machine.spoke = fleet.now();
                    machine.leaving = !machine.out && machine.worker.is_some();
                });
            }
            (Ask::Renew(says), _) => {
                let held = after.locks.values().any(|(holder, _)| *holder == name);
                let heard = says.deploy == after.id() || held || after.out.contains_key(&name);
                fleet.machine(at, |machine| {
                    if heard {
                        machine.spoke = fleet.now();
                    }
                    machine.excused &= !after.out.contains_key(&name);
                });
                let token = says.held.as_ref().map(|held| &held.token);
                let ended = token.is_some_and(|token| self.ended_tokens.get(&name).is_some_and(|t| t.contains(token)));
                let grew = after.locks.len() > before.locks.len() || after.out.len() > before.out.len();
                if ended && grew {
                    fleet.breaks(format!("a token of {name} that had ended brought a lock or `out` back"));
                }
            }
            (Ask::Join { .. }, Answer::Joined(JoinReply::Seated { joined, .. })) => {
                let counts_again = after.rows.get(&name) == Some(&Phase::Waiting);
                if before.rows.get(&name).is_none_or(|phase| matches!(phase, Phase::Gone | Phase::Lost))
                    && !(*joined && counts_again)
                {
                    fleet.breaks(format!("{name} joined, and does not count again"));
                }
            }
            (Ask::Finish { held, finish, .. }, _) => {
                if let Some(held) = held {
                    let ended = self.ended_tokens.entry(name.clone()).or_default();
                    ended.insert(0, held.token.clone());
                    ended.truncate(3);
                    let successor = before.out.get(&name).is_some_and(|entry| entry["token"] != held.token.as_str());
                    let touched = before.out.get(&name).map(|said| &said.0) != after.out.get(&name).map(|said| &said.0)
                        || before.rows.get(&name) != after.rows.get(&name);
                    if successor && touched {
                        fleet.breaks(format!("{name}: a worker ended what its successor is at"));
                    }
                }
                if before.out.contains_key(&name) && !after.out.contains_key(&name) && !finish.in_service {
                    fleet.breaks(format!("{name} is taken for in service"));
                }
                if let Some(phase) = finish.phase.filter(|_| before.rows.get(&name) != after.rows.get(&name)) {
                    fleet.tell(format!("{name}: {phase} {}", finish.detail.as_deref().unwrap_or_default()));
                }
            }
            (Ask::Cancel { deploy, .. }, _) if before.rolls() && before.id() == deploy => {
                fleet.tell(format!("{name} cancels in Redis: the release is broken"));
                if after.cancel["broken"] != true {
                    fleet.breaks("that the release is broken does not outweigh an earlier cancel");
                }
            }
            _ => {}
        }
        if Rc::ptr_eq(&before, &after) {
            return;
        }
        for (suffix, holder) in &before.locks {
            let freed = after.locks.get(suffix).is_none_or(|now| now.0 != holder.0);
            if holder.0 != name && freed {
                fleet.breaks(format!("{name} freed the lock of {}", holder.0));
            }
        }
        self.always(fleet, &before, &after);
    }

    /// A script of the service has run, or all of what it did is done.
    pub fn after_service(&mut self, fleet: &Fleet) {
        let after = server::memory(|memory| Standing::read(memory, &self.before));
        let before = std::mem::replace(&mut self.before, Rc::clone(&after));
        if Rc::ptr_eq(&before, &after) {
            return;
        }
        self.check_verdicts(fleet, &before, &after);
        self.always(fleet, &before, &after);
    }

    fn check_verdicts(&mut self, fleet: &Fleet, before: &Standing, after: &Standing) {
        if before.id() != after.id() {
            return;
        }
        let three = 3 * ms(fleet.config.renew_interval());
        for at in 0..fleet.size() {
            let (name, spoke) = fleet.machine(at, |machine| (machine.name.to_string(), machine.spoke));
            let (was, is) = (before.rows.get(&name).copied(), after.rows.get(&name).copied());
            let silent_for = fleet.now() - spoke;
            if was != is && is == Some(Phase::Gone) {
                fleet.tell(format!("{name} is called gone"));
                fleet.machine(at, |machine| machine.excused |= machine.out || machine.leaving);
                if silent_for <= three && was.is_some_and(Phase::is_unfinished) {
                    fleet.breaks(format!("{name} was called gone, and spoke {silent_for} ms ago"));
                }
                if fleet.serf(at) != "left" {
                    let silenced = self.silenced.entry(before.id().to_owned()).or_default();
                    *silenced += 1;
                    let (_, size) = self.begun.get(before.id()).copied().unwrap_or_default();
                    let most = before.locks_for(size).max(size / 2);
                    if *silenced > most && size > 0 && self.lost_data == 0 {
                        fleet.breaks(format!("{silenced} of {size} boxes were called gone by silence"));
                    }
                }
            }
            if was != is && is == Some(Phase::Lost) {
                fleet.tell(format!("{name} is called lost"));
                let by_person =
                    !after.out.contains_key(&name) && !after.locks.values().any(|(holder, _)| *holder == name);
                if silent_for <= ms(fleet.config.lock_ttl) && spoke > self.lost_data && !by_person {
                    fleet.breaks(format!("{name} was called lost, and spoke {silent_for} ms ago"));
                }
            }
        }
    }

    fn always(&mut self, fleet: &Fleet, before: &Standing, after: &Standing) {
        let mut holders = BTreeSet::new();
        for (name, _) in after.locks.values() {
            if !holders.insert(name) {
                fleet.breaks(format!("{name} holds two locks"));
            }
        }
        server::memory(|memory| table_agrees(fleet, memory, after));
        out_is_the_truth(fleet, after);
        self.note_begin(fleet, before, after);
        self.note_end(fleet, before, after);
        if !after.queued.is_null() && before.queued["id"] != after.queued["id"] {
            fleet.tell(format!("queued: {}", text(&after.queued["tag"])));
            self.queued.insert(text(&after.queued["id"]).to_owned(), fleet.now());
        }
    }

    fn note_begin(&mut self, fleet: &Fleet, before: &Standing, after: &Standing) {
        if before.id() == after.id() || after.id().is_empty() || self.begun.contains_key(after.id()) {
            return;
        }
        let (id, tag) = (after.id().to_owned(), text(&after.current["tag"]).to_owned());
        let by = text(&after.current["by"]);
        fleet.tell(format!("{by} starts {tag} ({}) on {} boxes", text(&after.current["kind"]), after.rows.len()));
        self.begun.insert(id.clone(), (fleet.now(), u32::try_from(after.rows.len()).unwrap()));
        if let Some(since) = self.queued.get(&id)
            && self.last_begin > *since
        {
            fleet.breaks(format!("{tag} was queued before what began since, and begins over it"));
        }
        self.last_begin = fleet.now();
        let mark = server::memory(|memory| json(memory.field(&format!("{PREFIX}:service:marks:app"), &tag)));
        if mark["status"] == "broken" && after.current["force"] != true && self.lost_data == 0 {
            fleet.breaks(format!("{tag} is broken, and begins again"));
        }
    }

    fn note_end(&mut self, fleet: &Fleet, before: &Standing, after: &Standing) {
        // What rolled before may have given way to another.
        let record = server::memory(|memory| json(memory.get(&format!("{}deploy:{}:record", base(), before.id()))));
        let state = text(&record["state"]).to_owned();
        if before.id().is_empty() || state.is_empty() || state == "rolling" {
            return;
        }
        let how = format!("{state} {}", record["ended"]);
        match self.ended.get(before.id()) {
            Some(known) if *known != how => fleet.breaks(format!("{} ended {known}, and then {how}", before.id())),
            Some(_) => return,
            None => {}
        }
        self.ended.insert(before.id().to_owned(), how);
        if !before.rolls() {
            return;
        }
        fleet.tell(format!("{} ends {state}: {}", text(&record["tag"]), text(&record["reason"])));
        if before.id() == after.id() {
            self.check_end(fleet, before, after, &state);
        }
    }

    /// An end that is not another deploy's beginning.
    fn check_end(&self, fleet: &Fleet, before: &Standing, after: &Standing, state: &str) {
        let works: Vec<&String> = before
            .rows
            .iter()
            .filter(|(name, is)| {
                is.is_working()
                    && after.rows.get(*name) != Some(&Phase::Lost)
                    && after.rows.get(*name) != Some(&Phase::Gone)
            })
            .map(|(name, _)| name)
            .collect();
        if !works.is_empty() {
            fleet.breaks(format!("it ended {state} while {works:?} work"));
        }
        let broken = after.cancel["broken"] == true;
        if broken && state != "broken" {
            fleet.breaks(format!("the release is broken, and it ended {state}"));
        }
        if state != "deployed" {
            return;
        }
        let tag = text(&after.current["tag"]);
        let mut done = 0;
        for machine in fleet.machines.borrow().iter() {
            let row = after.rows.get(machine.name.as_str()).copied();
            done += u32::from(row == Some(Phase::Done));
            let runs = machine.container.as_ref().is_some_and(|runs| runs.as_str() == tag);
            // One that a person has taken out, or another tag brought to, since.
            let by_hand = machine.journal.kept_out.is_some() || machine.worker.is_some() || machine.excused;
            if row == Some(Phase::Done) && !runs && machine.is_alive() && !by_hand && self.lost_data == 0 {
                fleet.breaks(format!("it ended deployed, and {} runs {:?}", machine.name, machine.container));
            }
            let fine = matches!(row, Some(Phase::Done)) || machine.journal.kept_out.is_some();
            let seen = machine.is_alive() && fleet.now() - machine.agent_since > 10_000;
            if seen && !fine && !machine.out && matches!(row, None | Some(Phase::Gone)) && self.lost_data == 0 {
                fleet.breaks(format!("it ended deployed without {}, which lives: {row:?}", machine.name));
            }
        }
        let (_, size) = self.begun.get(after.id()).copied().unwrap_or_default();
        let kept = fleet.machines.borrow().iter().filter(|machine| machine.journal.kept_out.is_some()).count();
        let kept = u32::try_from(kept).unwrap();
        if size > 0 && done + kept < size.saturating_sub(before.locks_for(size)) && self.lost_data == 0 {
            fleet.breaks(format!("it ended deployed, and {done} of {size} are done"));
        }
    }

    /// What Redis remembers when everything should be at rest.
    pub fn at_rest() -> Result<(), String> {
        let now = server::memory(|memory| Standing::read(memory, &Rc::default()));
        let require = |holds: bool, what: String| if holds { Ok(()) } else { Err(what) };
        require(!now.rolls(), format!("{} rolls", now.id()))?;
        require(now.queued.is_null(), format!("{} is queued", *now.queued))?;
        require(now.locks.is_empty(), format!("locks: {:?}", now.locks))
    }
}

/// Who is out stands in Redis as out.
fn out_is_the_truth(fleet: &Fleet, after: &Standing) {
    for machine in fleet.machines.borrow().iter() {
        let known = after.out.contains_key(machine.name.as_str());
        if machine.out && !machine.excused && !known {
            fleet.breaks(format!("{} is out, and Redis does not know", machine.name));
        }
    }
}

fn check_grant(fleet: &Fleet, before: &Standing, at: usize, name: &str, deploy: &str, by_hand: bool) {
    let settle = 3 * ms(fleet.config.renew_interval());
    if fleet.now() < before.epoch["since"].as_i64().unwrap_or(0) + settle {
        fleet.breaks(format!("a grant to {name} before everybody has said where it stands"));
    }
    if by_hand {
        return;
    }
    for (wrong, what) in [
        (!before.rolls() || before.id() != deploy, "after the end"),
        (!before.cancel.is_null(), "after the cancel"),
        (!before.current["pause"].is_null(), "during a pause"),
        (before.held_by_another(fleet.now(), name), "during a hold"),
    ] {
        if wrong {
            fleet.breaks(format!("a grant to {name} {what}"));
        }
    }
    let mut used: BTreeSet<String> = taken(fleet, before, at).into_iter().collect();
    used.extend(
        before
            .rows
            .iter()
            .filter(|(other, is)| **is == Phase::Failed && *other != name)
            .map(|(other, _)| other.clone()),
    );
    used.extend(before.locks.values().map(|(holder, _)| holder.clone()).filter(|holder| holder != name));
    let had_lock = before.locks.values().any(|(holder, _)| holder == name);
    let n = before.locks_for(before.size());
    if !had_lock && used.len() >= usize::try_from(n).unwrap() {
        fleet.breaks(format!("a lock for {name} beside those that {used:?} use up, of {n}"));
    }
    if !had_lock {
        check_zone(fleet, before, at, &used.into_iter().collect::<Vec<_>>());
    }
}

/// No zone has more out than its n, where there is more than one.
fn check_zone(fleet: &Fleet, before: &Standing, at: usize, others: &[String]) {
    let zones: BTreeMap<String, String> =
        fleet.zones().into_iter().map(|(name, zone)| (name.to_string(), zone.to_string())).collect();
    let Some(mine) = zones.get(fleet.name(at).as_str()) else { return };
    let in_table: BTreeSet<&String> = before.rows.keys().filter_map(|name| zones.get(name)).collect();
    let of_mine = |name: &&String| zones.get(*name) == Some(mine);
    let size = before.rows.iter().filter(|(name, phase)| of_mine(name) && **phase != Phase::Gone).count();
    let n = before.locks_for(u32::try_from(size).unwrap());
    let others: Vec<&String> = others.iter().filter(of_mine).collect();
    if in_table.len() > 1 && others.len() >= usize::try_from(n).unwrap() {
        fleet.breaks(format!("{} goes beside {others:?} of {mine}, of which {n} may be out", fleet.name(at)));
    }
}

/// The boxes other than `at` that use up capacity, in truth or by what Redis says.
fn taken(fleet: &Fleet, before: &Standing, at: usize) -> Vec<String> {
    let machines = fleet.machines.borrow();
    let counts = |machine: &crate::simulation::fleet::Machine| match before.out.get(machine.name.as_str()) {
        Some(entry) => before.counts(fleet.now(), machine.name.as_str(), entry),
        None => (machine.out || machine.leaving) && !machine.excused,
    };
    let others = machines.iter().enumerate().filter(|(other, machine)| *other != at && counts(machine));
    others.map(|(_, machine)| machine.name.to_string()).collect()
}

fn check_leave(
    fleet: &Fleet,
    before: &Standing,
    at: usize,
    name: &str,
    size: u32,
    by_hand: bool,
    surveys: &[deployctl::coordination::Survey],
) {
    let share = if by_hand { MaxParallel::default() } else { text(&before.current["max_parallel"]).parse().unwrap() };
    let n = share.locks(size);
    let others = taken(fleet, before, at);
    if others.len() >= usize::try_from(n).unwrap() {
        fleet.breaks(format!("{name} leaves while {others:?} are out, and {n} may be"));
    }
    for survey in surveys {
        let announced = |target: &String| before.out.contains_key(target);
        let serves = survey.in_service.iter().filter(|target| *target != name && !announced(target)).count();
        let floor = usize::try_from(size.saturating_sub(n)).unwrap();
        if survey.in_service.iter().any(|target| target == name) && serves < floor {
            fleet.breaks(format!("{name} leaves, and {serves} others serve where {floor} must"));
        }
    }
    if by_hand {
        return;
    }
    for (wrong, what) in [
        (!before.rolls(), "after the end"),
        (!before.cancel.is_null(), "after the cancel"),
        (!before.current["pause"].is_null(), "during a pause"),
        (before.held_by_another(fleet.now(), name), "during a hold"),
    ] {
        if wrong {
            fleet.breaks(format!("{name} leaves {what}"));
        }
    }
    if !before.locks.values().any(|(holder, _)| holder == name) {
        fleet.breaks(format!("{name} leaves without a lock"));
    }
    check_zone(fleet, before, at, &others);
}

/// `remaining`, the tally and the failed are what the table says.
fn table_agrees(fleet: &Fleet, memory: &Memory, after: &Standing) {
    if after.id().is_empty() {
        return;
    }
    let of = |part: &str| format!("{}deploy:{}:{part}", base(), after.id());
    let unfinished = after.rows.values().filter(|phase| phase.is_unfinished()).count();
    if let Some(remaining) = memory.get(&of("remaining"))
        && *remaining != unfinished.to_string()
    {
        fleet.breaks(format!("remaining is {remaining}, and {unfinished} are unfinished"));
    }
    let tally = of("tally");
    let tally = memory.hash(&tally).filter_map(|(field, count)| {
        Phase::ALL.iter().find(|phase| phase.as_str() == field).map(|phase| (*phase, count.parse::<usize>()))
    });
    for (phase, count) in tally {
        let counted = after.rows.values().filter(|is| **is == phase).count();
        if count != Ok(counted) {
            fleet.breaks(format!("the tally says {count:?} {phase}, and the table {counted}"));
        }
    }
    let failed: Vec<&String> =
        after.rows.iter().filter(|(_, is)| **is == Phase::Failed).map(|(name, _)| name).collect();
    let noted = memory.members(&of("failed"));
    if !noted.iter().eq(failed.iter().copied()) {
        fleet.breaks(format!("{noted:?} are noted as failed, and {failed:?} are"));
    }
}

/// A release that works must never be called broken.
pub fn check_marks(fleet: &Fleet) {
    for (tag, quality) in fleet.releases.borrow().iter() {
        let mark = server::memory(|memory| json(memory.field(&format!("{PREFIX}:service:marks:app"), tag.as_str())));
        let by_person = text(&mark["reason"]).starts_with("ann");
        if *quality == Quality::Good && mark["status"] == "broken" && !by_person {
            fleet.breaks(format!("{tag} works, and is called broken: {}", mark["reason"]));
        }
    }
}
