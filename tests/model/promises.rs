//! What must be so, at every state and at every step.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use crate::model::engine::BASE;
use crate::model::fleet::{Fleet, SILENT_FOR, Step};
use crate::model::state::{Action, Life, Machine, NAMES, State};

const UNFINISHED: [&str; 7] = ["expected", "waiting", "pulling", "draining", "starting", "verifying", "registering"];

const WORKING: [&str; 4] = ["draining", "starting", "verifying", "registering"];

/// In these phases a box has the release, or is on the way to it.
const HAS_RELEASE: [&str; 6] = ["draining", "starting", "verifying", "registering", "done", "lost"];

fn rows(state: &State, deploy: usize) -> Vec<(String, Json)> {
    let key = format!("{BASE}deploy:d{deploy}:boxes");
    state.memory.hash(&key).map(|(name, text)| (name.clone(), serde_json::from_str(text).unwrap())).collect()
}

fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

impl Fleet<'_> {
    /// Takes `action` in `state`, and looks whether all promises still hold.
    pub fn checked_step(&self, state: &State, action: Action) -> Step {
        let taken = self.step(state, action)?;
        Some(taken.and_then(|mut next| {
            note_ends(&mut next)?;
            frees_no_other(state, &next, action)?;
            self.check(&next)?;
            Ok(next)
        }))
    }

    /// What must be so in every state.
    fn check(&self, state: &State) -> Result<(), String> {
        self.capacity(state)?;
        one_lock_each(state)?;
        for deploy in 1..=state.begun {
            table_agrees(state, deploy)?;
            // Who was not upgraded writes no times.
            if self.engine.older.is_none() {
                times_agree(state, deploy)?;
            }
        }
        counts_agree(state, self.engine.older.is_some())?;
        // Who was not upgraded knows nothing of zones.
        if self.bounds.zones && self.engine.older.is_none() {
            Self::zone_capacity(state)?;
            zones_agree(state)?;
        }
        out_is_the_truth(state)
    }

    /// Of the zone of two boxes one at most is out, or may go at any time.
    fn zone_capacity(state: &State) -> Result<(), String> {
        let holders = holders(state);
        let goes = |at: &usize| {
            let machine = &state.machines[*at];
            counts(machine) || holders.iter().any(|name| name == NAMES[*at]) && !machine.excused
        };
        let out: Vec<&str> = (1..NAMES.len()).filter(goes).map(|at| NAMES[at]).collect();
        require(out.len() <= 1, || format!("{out:?} of one zone are out or have a lock"))
    }

    /// Boxes that workers took out never exceed n.
    fn capacity(&self, state: &State) -> Result<(), String> {
        let out: BTreeSet<&str> =
            (0..NAMES.len()).filter(|at| counts(&state.machines[*at])).map(|at| NAMES[at]).collect();
        require(out.len() <= self.bounds.locks, || format!("{out:?} are out"))?;
        // And those that have a lock may go at any time.
        let excused: Vec<&str> =
            (0..NAMES.len()).filter(|at| state.machines[*at].excused).map(|at| NAMES[at]).collect();
        let mut used: BTreeSet<String> = out.into_iter().map(str::to_owned).collect();
        used.extend(holders(state).into_iter().filter(|name| !excused.contains(&name.as_str())));
        require(used.len() <= self.bounds.locks, || format!("{used:?} are out or have a lock"))
    }

    /// What must be so when a lock is granted to the box `at` that serves.
    pub fn check_grant(&self, before: &State, at: usize) -> Result<(), String> {
        let deploy = before.rolling().ok_or("a grant after the end")?;
        require(before.cancel(deploy).is_null(), || "a grant after the cancel".to_owned())?;
        require(before.read("current")["pause"].is_null(), || "a grant during a pause".to_owned())?;
        require(before.restarted.is_none(), || "a grant before everybody has said where it stands".to_owned())?;
        let key = format!("{BASE}deploy:d{deploy}:hold");
        let held = before
            .memory
            .hash(&key)
            .any(|(name, until)| name != NAMES[at] && until.parse::<i64>().unwrap() > before.memory.now);
        require(!held, || "a grant during a hold".to_owned())?;
        // No box beyond a step gets the release before the step has passed; one that died is replaced.
        let (record, mut has_it) = (before.read("current"), BTreeSet::from([NAMES[at].to_owned()]));
        for (machine, name) in before.machines.iter().zip(NAMES) {
            let phase = before.phase(deploy, name);
            let served = HAS_RELEASE.contains(&phase.as_str())
                || (1..=4).any(|suffix| {
                    let lock = before.read(&format!("lock:{suffix}"));
                    lock["box"] == name && lock["deploy"] == format!("d{deploy}")
                });
            if served && machine.life == Life::Alive && !(machine.out && phase == "waiting") {
                has_it.insert(name.to_owned());
            }
        }
        require(record["step"] != 1 || has_it.len() == 1, || format!("{has_it:?} in a step of one box"))?;
        let mut used = BTreeSet::from([NAMES[at]]);
        for (machine, name) in before.machines.iter().zip(NAMES) {
            if counts(machine) || before.phase(deploy, name) == "failed" {
                used.insert(name);
            }
        }
        require(used.len() <= self.bounds.locks, || format!("a lock beside those that {used:?} use up"))?;
        used.remove(NAMES[0]);
        let binds = self.bounds.zones && self.engine.older.is_none();
        require(!binds || used.len() <= 1, || format!("a lock beside those that {used:?} of one zone use up"))
    }
}

/// Where a glance says that a look finds nothing, it finds nothing.
pub fn check_glance(glance: &Json, before: &State, after: &State, answer: &Json) -> Result<(), String> {
    if glance["look"] == true {
        return Ok(());
    }
    let judged = |state: &State| {
        let rows: Vec<Vec<(String, Json)>> = (1..=state.begun).map(|deploy| rows(state, deploy)).collect();
        (
            rows,
            holders(state),
            NAMES.map(|name| state.out_entry(name)),
            state.read("current"),
            state.cancel(state.begun),
        )
    };
    require(answer["ended"] == false && judged(before) == judged(after), || {
        format!("a glance says that there is nothing to see, and the look answers {answer}")
    })?;
    // To ask a box once more does no harm.
    require(glance["silent"].as_u64() >= answer["silent"].as_u64(), || {
        format!("{glance}, and the look answers {answer}")
    })
}

/// What must be so of the service's look.
pub fn check_look(before: &State, after: &mut State, deploy: usize, answer: &Json) -> Result<(), String> {
    let now = before.memory.now;
    for (at, name) in NAMES.iter().enumerate() {
        let machine = &mut after.machines[at];
        let spoken = machine.worker.is_some() && now - machine.spoke <= SILENT_FOR;
        let buried = before.out_entry(name).is_some() && after.memory.field(&format!("{BASE}out"), name).is_none();
        require(!(buried && spoken), || format!("{name} was given up although it speaks"))?;
        machine.excused |= machine.out && buried;
    }
    if answer["ended"] != true {
        return Ok(());
    }
    let state = answer["state"].as_str().unwrap().to_owned();
    if state == "deployed" {
        for (machine, name) in after.machines.iter().zip(NAMES) {
            let done = after.phase(deploy, name) == "done" && (!machine.out || machine.worker.is_some());
            require(done || machine.life != Life::Alive, || format!("deployed, but {name} is not done"))?;
        }
    }
    let cancel = before.cancel(deploy);
    require(cancel["broken"] != true || state == "broken", || format!("broken, but it ended {state}"))?;
    require(cancel.is_null() || state != "deployed", || "cancelled, but it ended deployed".to_owned())?;
    Ok(())
}

/// An end is written once. Notes the ends that are new.
fn note_ends(state: &mut State) -> Result<(), String> {
    for deploy in 1..=state.begun {
        let record = state.read(&format!("deploy:d{deploy}:record"));
        let ended = record["state"].as_str().filter(|word| *word != "rolling");
        let now = ended.map(|word| format!("{word} {}", record["ended"]));
        let noted = &mut state.ended[deploy - 1];
        if noted.is_some() && !record.is_null() {
            require(*noted == now, || format!("d{deploy} had ended {noted:?}, and is now {now:?}"))?;
        }
        *noted = noted.take().or(now);
    }
    Ok(())
}

/// Whether the box uses up capacity, in truth.
fn counts(machine: &Machine) -> bool {
    machine.out && !machine.excused && machine.life != Life::Dead
}

/// Who holds a lock, as often as there are.
fn holders(state: &State) -> Vec<String> {
    let keys = state.memory.names().into_iter().filter(|key| key.starts_with(&format!("{BASE}lock:")));
    keys.map(|key| {
        let lock: Json = serde_json::from_str(state.memory.get(&key).unwrap()).unwrap();
        lock["box"].as_str().unwrap().to_owned()
    })
    .collect()
}

/// No box ends what another owns.
fn frees_no_other(before: &State, after: &State, action: Action) -> Result<(), String> {
    let Some(at) = action.by() else { return Ok(()) };
    let left = holders(after);
    let freed = holders(before).into_iter().find(|name| name != NAMES[at] && !left.contains(name));
    freed.map_or(Ok(()), |name| Err(format!("{} freed the lock of {name}", NAMES[at])))
}

fn one_lock_each(state: &State) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for holder in holders(state) {
        require(seen.insert(holder.clone()), || format!("{holder} holds two locks"))?;
    }
    for key in state.memory.names().iter().filter(|key| key.starts_with(&format!("{BASE}lock:"))) {
        require(state.memory.expires(key) == Some(true), || format!("{key} does not expire"))?;
    }
    Ok(())
}

/// `remaining`, the tally and the failed are what the table says; nothing of an ended deploy stays for ever.
fn table_agrees(state: &State, deploy: usize) -> Result<(), String> {
    let rows = rows(state, deploy);
    let base = format!("{BASE}deploy:d{deploy}:");
    if let Some(remaining) = state.memory.get(&format!("{base}remaining")) {
        let unfinished = rows.iter().filter(|(_, row)| UNFINISHED.contains(&row["phase"].as_str().unwrap())).count();
        require(*remaining == unfinished.to_string(), || {
            format!("remaining is {remaining}, {unfinished} are unfinished")
        })?;
    }
    for (phase, count) in state.memory.hash(&format!("{base}tally")).filter(|(field, _)| {
        !["progress", "begun", "gone_by_silence", "looked", "thorough", "fading", "gap"].contains(&field.as_str())
    }) {
        let counted = rows.iter().filter(|(_, row)| row["phase"] == phase.as_str()).count();
        require(*count == counted.to_string(), || format!("the tally says {count} {phase}, the table {counted}"))?;
    }
    let failed: Vec<&String> = rows.iter().filter(|(_, row)| row["phase"] == "failed").map(|(name, _)| name).collect();
    let noted = state.memory.members(&format!("{base}failed"));
    require(noted.iter().eq(failed.iter().copied()), || format!("{noted:?} are noted as failed, {failed:?} are"))?;
    let rolls = state.rolling() == Some(deploy);
    for key in state.memory.names().iter().filter(|key| key.starts_with(&base)) {
        let expires = state.memory.expires(key) == Some(!rolls);
        // An older service knows nothing of the times, nor of zones.
        let times = key.ends_with(":seen") || key.ends_with(":working") || is_of_zones(key);
        require(expires || times, || format!("{key}: wrong expiry, rolls: {rolls}"))?;
    }
    Ok(())
}

/// When the boxes with unfinished rows were heard of is what the table says.
fn times_agree(state: &State, deploy: usize) -> Result<(), String> {
    let rows = rows(state, deploy);
    let base = format!("{BASE}deploy:d{deploy}:");
    let heard = |works: bool| {
        let unfinished = rows.iter().filter(|(_, row)| UNFINISHED.contains(&row["phase"].as_str().unwrap()));
        let of_kind = unfinished.filter(move |(_, row)| WORKING.contains(&row["phase"].as_str().unwrap()) == works);
        of_kind.map(|(name, row)| (name.clone(), row["seen"].as_f64().unwrap())).collect::<BTreeMap<String, f64>>()
    };
    for (set, works) in [("working", true), ("seen", false)] {
        let kept = state.memory.sorted(&format!("{base}{set}"));
        let kept: BTreeMap<String, f64> = kept.into_iter().map(|(when, name)| (name, when)).collect();
        require(kept == heard(works), || format!("`{set}` says {kept:?}, the table {:?}", heard(works)))?;
        let expires = state.memory.expires(&format!("{base}{set}"));
        require(expires != Some(state.rolling() == Some(deploy)), || format!("{set} of {deploy}: wrong expiry"))?;
    }
    Ok(())
}

/// What is kept of who uses up capacity is what counting would say: of each box, whether it counts, and until when. While
/// somebody runs older scripts it may say more, but not less.
fn counts_agree(state: &State, mixed: bool) -> Result<(), String> {
    if state.memory.get(&format!("{BASE}counted")) != Some(&traces(state)) {
        return Ok(());
    }
    let counted = count(state);
    for (set, counted) in ["used", "away", "taking"].iter().zip(counted) {
        let kept = state.memory.sorted(&format!("{BASE}{set}"));
        if mixed {
            let missing = counted.keys().find(|name| !kept.iter().any(|(_, kept)| kept == *name));
            require(missing.is_none(), || format!("`{set}` says {kept:?}, and counting {counted:?}"))?;
            continue;
        }
        // What lies in the past is asked for before it is believed.
        let kept: BTreeMap<String, f64> =
            kept.into_iter().filter(|(until, _)| *until >= now(state)).map(|(until, name)| (name, until)).collect();
        require(kept == counted, || format!("`{set}` says {kept:?}, and counting {counted:?}"))?;
    }
    Ok(())
}

fn is_of_zones(key: &str) -> bool {
    key.ends_with(":zones") || key.ends_with(":lost")
}

/// What is kept of the zones is what counting would say: how many boxes of the table, and who of each counts.
fn zones_agree(state: &State) -> Result<(), String> {
    for key in state.memory.names().iter().filter(|key| key.starts_with(&format!("{BASE}deploy:")) && is_of_zones(key))
    {
        let rolls = state.rolling().is_some_and(|deploy| key.contains(&format!("deploy:d{deploy}:")));
        require(state.memory.expires(key) == Some(!rolls), || format!("{key}: wrong expiry, rolls: {rolls}"))?;
    }
    if let Some(deploy) = state.rolling() {
        let mut counted = BTreeMap::<String, i64>::new();
        for (name, row) in rows(state, deploy) {
            let zone = state.memory.field(&format!("{BASE}zones"), &name).cloned().unwrap_or_default();
            let phase = row["phase"].as_str().unwrap();
            let parts: &[&str] = match phase {
                "expected" => &["size", "expected"],
                "waiting" | "pulling" => &["size", "waits"],
                "gone" => &["gone"],
                _ => &["size"],
            };
            for part in parts {
                *counted.entry(format!("{zone} {part}")).or_default() += 1;
            }
        }
        let key = format!("{BASE}deploy:d{deploy}:zones");
        let kept = state.memory.hash(&key);
        let kept: BTreeMap<String, i64> = kept.map(|(field, count)| (field.clone(), count.parse().unwrap())).collect();
        let kept: BTreeMap<String, i64> = kept.into_iter().filter(|(_, count)| *count != 0).collect();
        require(kept.is_empty() || kept == counted, || {
            format!("the zones are {kept:?}, and the table says {counted:?}")
        })?;
    }
    if state.memory.get(&format!("{BASE}counted")) != Some(&traces(state)) {
        return Ok(());
    }
    for set in ["used", "away"] {
        let all = state.memory.sorted(&format!("{BASE}{set}"));
        for zone in ["x", "y"] {
            let in_zone =
                |name: &String| state.memory.field(&format!("{BASE}zones"), name).is_some_and(|of| of == zone);
            let wanted: Vec<_> = all.iter().filter(|(_, name)| in_zone(name)).cloned().collect();
            let kept = state.memory.sorted(&format!("{BASE}{set}:{zone}"));
            require(kept == wanted, || format!("`{set}:{zone}` says {kept:?}, and `{set}` {wanted:?}"))?;
        }
    }
    Ok(())
}

/// As the scripts write them down.
fn traces(state: &State) -> String {
    let id = state.rolling().map_or_else(String::new, |deploy| format!("d{deploy}"));
    let next = state.memory.field(&format!("{BASE}walk"), "next").cloned().unwrap_or_default();
    let [holders, out] = ["holders", "out"].map(|key| state.memory.hash(&format!("{BASE}{key}")).count());
    let failed = state.memory.members(&format!("{BASE}deploy:{id}:failed")).len();
    let waiting = state.memory.field(&format!("{BASE}deploy:{id}:tally"), "waiting").map_or("0", String::as_str);
    let zones = match state.memory.members(&format!("{BASE}zone_names")).len() {
        0 => String::new(),
        zones => format!(" {zones}"),
    };
    format!("{id} {holders} {out} {failed} {waiting} {next}{zones}")
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds")]
fn now(state: &State) -> f64 {
    state.memory.now as f64
}

/// Until when each box counts: as used, as out, and as one that takes a place in a step.
fn count(state: &State) -> [BTreeMap<String, f64>; 3] {
    let mut counts = [(); 3].map(|()| BTreeMap::new());
    let (current, rolling) = (state.read("current"), state.rolling());
    let is_rolling = |id: &Json| rolling.is_some() && *id == current["id"];
    for name in NAMES {
        let phase = rolling.map_or_else(String::new, |deploy| state.phase(deploy, name));
        let entry = state.out_entry(name);
        let away = entry.as_ref().map_or(0.0, |entry| {
            let aged = entry["renewed"].as_f64().unwrap() + entry["ttl"].as_f64().unwrap() - 1.0;
            if is_rolling(&entry["deploy"]) { f64::INFINITY } else { aged }
        });
        let lock = (1..=4).find(|suffix| state.read(&format!("lock:{suffix}"))["box"] == name);
        let lives = lock.map_or(0.0, |suffix| {
            let left = state.memory.lives(&format!("{BASE}lock:{suffix}"));
            now(state) + left
        });
        let of_rolling = lock.is_some_and(|suffix| is_rolling(&state.read(&format!("lock:{suffix}"))["deploy"]));
        let begins = entry.is_none_or(|entry| is_rolling(&entry["begun"]));
        let waits = UNFINISHED.contains(&phase.as_str()) && !HAS_RELEASE.contains(&phase.as_str());
        let taking = if of_rolling && begins && waits { lives } else { 0.0 };
        let used = if phase == "failed" { f64::INFINITY } else { away.max(lives) };
        for (counts, until) in counts.iter_mut().zip([used, away, taking]) {
            if until >= now(state) {
                counts.insert(name.to_owned(), until);
            }
        }
    }
    counts
}

/// Who is out stands in `out`, until it is given up by the rules.
fn out_is_the_truth(state: &State) -> Result<(), String> {
    for (machine, name) in state.machines.iter().zip(NAMES) {
        let known = !machine.out || machine.excused || machine.life == Life::Dead || state.out_entry(name).is_some();
        require(known || state.restarted.is_some(), || format!("{name} is out, and Redis does not know"))?;
    }
    Ok(())
}
