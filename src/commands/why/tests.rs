//! From answers of the service to what a person reads.

use serde_json::{Value, json};

use super::*;

fn place() -> Place {
    Place { environment: "staging".parse().unwrap(), role: "app".parse().unwrap() }
}

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().unwrap()
}

fn row(name: &str, phase: &str, detail: &str) -> Value {
    json!({"box": name, "phase": phase, "since": "2026-01-01T00:09:00Z", "detail": detail})
}

/// A deploy of v2 that rolls, with `more` changed.
fn deploy(rows: &[Value], more: Value) -> Value {
    let mut deploy = json!({
        "id": "app.staging.x", "role": "app", "environment": "staging", "tag": "v2", "kind": "deploy",
        "state": "rolling", "size": rows.len(), "locks": 1, "remaining": rows.len(), "by": "ci", "last_good": "v1",
        "started_at": "2026-01-01T00:00:00Z", "boxes": rows,
    });
    merge(&mut deploy, more);
    deploy
}

fn merge(into: &mut Value, mut more: Value) {
    into.as_object_mut().unwrap().append(more.as_object_mut().unwrap());
}

fn lock(name: &str, renewed: &str) -> Value {
    json!({"suffix": 1, "box": name, "deploy": "app.staging.x", "since": "2026-01-01T00:08:30Z",
           "renewed": renewed, "expires_in_ms": 1})
}

fn out(name: &str, reason: Option<&str>) -> Value {
    json!({"box": name, "deploy": "app.staging.w", "since": "2026-01-01T00:00:00Z",
           "renewed": "2026-01-01T00:05:00Z", "reason": reason})
}

/// The service's answer, with these deploys, and `more` changed.
fn answer(deploys: &[Value], more: Value) -> StatusAnswer {
    let mut answer = json!({"deploys": deploys, "running": [], "places": [], "freezes": [], "broken": []});
    merge(&mut answer, more);
    serde_json::from_value(answer).unwrap()
}

fn locks(locks: &[Value], outs: &[Value]) -> Value {
    json!({"places": [{"role": "app", "environment": "staging", "locks": locks, "out": outs}]})
}

/// What is said, with the kind in front.
fn said(answer: &StatusAnswer, name: Option<&str>) -> Vec<String> {
    let name = name.map(|name| name.parse().unwrap());
    let reasons = reasons(answer, &place(), name.as_ref(), now());
    reasons.into_iter().map(|reason| format!("{}: {}", reason.kind, reason.text)).collect()
}

/// The next act of the one reason of this kind.
#[track_caller]
fn next(answer: &StatusAnswer, name: Option<&str>, kind: &str) -> String {
    let name = name.map(|name| name.parse().unwrap());
    let reasons = reasons(answer, &place(), name.as_ref(), now());
    let found = reasons.iter().find(|reason| reason.kind == kind).unwrap_or_else(|| panic!("no {kind} in {reasons:?}"));
    found.next.clone().unwrap_or_default()
}

#[test]
fn who_works_and_who_waits_for_whom() {
    let rows = [
        row("box-1", "starting", ""),
        row("box-2", "waiting", "1 of 1 lock: box-1"),
        row("box-3", "waiting", "1 of 1 lock: box-1"),
        row("box-4", "expected", ""),
    ];
    let answer =
        answer(&[deploy(&rows, json!({}))], locks(&[lock("box-1", "2026-01-01T00:09:55Z")], &[out("box-1", None)]));
    assert_eq!(
        said(&answer, None),
        [
            "working: box-1 is starting for 1m 0s, and holds lock 1 for 1m 30s",
            "expected: box-4 has not joined",
            "waiting: 2 boxes wait for this: 1 of 1 lock: box-1",
        ]
    );
    assert!(next(&answer, None, "expected").contains("deployctl doctor"));
    assert_eq!(
        said(&answer, Some("box-3")),
        [
            "waiting: box-3 waits for this: 1 of 1 lock: box-1",
            "holder: box-1 holds lock 1 for 1m 30s, starting for 1m 0s",
        ]
    );
    let shown = lines(Style::plain(), &answer, &place(), &reasons(&answer, &place(), None, now()), now());
    assert!(shown[0].starts_with("app in staging: v1 → v2, rolling for 10m"), "{shown:?}");
    assert_eq!(shown[2], "  next: nothing, or there: `journalctl -f -u deployctl@app`");
}

#[test]
fn a_silent_worker_is_told_from_a_busy_one() {
    let deploy = deploy(&[row("box-1", "draining", "")], json!({}));
    let answer = answer(&[deploy], locks(&[lock("box-1", "2026-01-01T00:08:00Z")], &[]));
    let text = &said(&answer, None)[0];
    assert!(text.starts_with("silent: ") && text.ends_with("its worker is silent for 2m 0s"), "{text}");
    let unlock = "`deployctl unlock -r app -e staging --box box-1 --reason TEXT`";
    assert!(next(&answer, Some("box-1"), "silent").contains(unlock));
}

#[test]
fn what_halts_the_whole_comes_first() {
    let rows = [row("box-1", "done", ""), row("box-2", "waiting", "paused by ann: errors?")];
    let pause = json!({"pause": {"by": "ann", "reason": "errors?", "at": "2026-01-01T00:07:00Z"}});
    let paused = answer(&[deploy(&rows, pause)], json!({}));
    assert_eq!(said(&paused, None)[0], "paused: paused for 3m 0s by ann: errors?");
    assert_eq!(said(&paused, Some("box-2"))[0], "paused: paused for 3m 0s by ann: errors?");
    assert_eq!(next(&paused, None, "paused"), "`deployctl resume -r app -e staging`");
    let gate = answer(&[deploy(&rows, json!({"gate": "errors is 3, and must be at most 1"}))], json!({}));
    assert_eq!(said(&gate, None)[0], "gate: held: errors is 3, and must be at most 1");
    let step = json!({"number": 1, "of": 2, "boxes": 1, "lasts_ms": 300_000, "since": "2026-01-01T00:09:00Z"});
    let step = answer(&[deploy(&rows, json!({"step": step}))], json!({}));
    assert_eq!(said(&step, None)[0], "step: step 1 of 2: box-1 serves v2 for 1m 0s of 5m");
    let done = said(&step, Some("box-1"));
    assert_eq!(done, ["done: box-1 is done: it runs v2, in service"]);
}

#[test]
fn a_release_that_breaks_stops_every_box_once() {
    let stopped = "the release is broken: box-1: exit code 1 (by box-1)";
    let rows = [
        row("box-1", "rolled_back", "exit code 1"),
        row("box-2", "cancelled", stopped),
        row("box-3", "cancelled", stopped),
    ];
    let answer = answer(&[deploy(&rows, json!({}))], json!({}));
    assert_eq!(
        said(&answer, None),
        [
            "stopped: no box begins any more; cause: exit code 1",
            "rolled_back: box-1 went back to the tag before",
            "cancelled: 2 boxes were stopped",
        ]
    );
}

#[test]
fn boxes_that_failed_are_lost_or_kept_out_use_up_locks() {
    let rows = [row("box-1", "failed", "no space left"), row("box-2", "lost", "no sign of its worker")];
    let outs = [out("box-1", None), out("box-9", Some("new disk"))];
    let answer = answer(&[deploy(&rows, json!({}))], locks(&[], &outs));
    assert_eq!(
        said(&answer, None),
        [
            "failed: box-1 failed and uses up one lock: no space left",
            "lost: box-2 is lost: no sign of its worker",
            "out: box-1 is out of service for 10m 0s, since the deploy app.staging.w; it was heard of 5m 0s ago",
            "kept_out: box-9 is kept out by hand for 10m 0s: new disk",
        ]
    );
    assert_eq!(next(&answer, None, "failed"), "mend it, then there: `deployctl run -r app`");
    assert!(next(&answer, Some("box-9"), "kept_out").starts_with("there: `deployctl in -r app`"));
    assert!(next(&answer, Some("box-2"), "lost").starts_with("there: `deployctl sync`"));
}

#[test]
fn a_box_that_comes_back_by_itself_says_what_it_is_out_for() {
    let out_for = |by: &str, seconds: i64| {
        let mut out = out("box-3", None);
        out["purpose"] = json!("new kernel");
        out["deploy"] = json!(by);
        out["renewed"] = json!((now() - jiff::SignedDuration::from_secs(seconds)).to_string());
        answer(&[deploy(&[], json!({}))], locks(&[], &[out]))
    };
    let works = out_for("hand.box-3", 5);
    assert_eq!(said(&works, None).last().unwrap(), "out_for: box-3 is out of service for 10m 0s, for this: new kernel");
    assert_eq!(next(&works, None, "out_for"), "nothing: it comes back when that is done");
    let silent = out_for("hand.box-3", 300);
    assert!(next(&silent, None, "out_for").starts_with("there: `deployctl sync`"));
    let reboots = out_for(crate::api::FLEET_LOCK, 300);
    assert!(next(&reboots, None, "out_for").contains("deployctl unlock -r app -e staging --box box-3"));
}

#[test]
fn many_boxes_are_counted() {
    let rows: Vec<Value> = (1..=9).map(|number| row(&format!("box-{number}"), "failed", "x")).collect();
    let answer = answer(&[deploy(&rows, json!({}))], json!({}));
    assert_eq!(said(&answer, None).last().unwrap(), "failed: and so are 6 more");
    let rows: Vec<Value> = (1..=9).map(|number| row(&format!("box-{number}"), "expected", "")).collect();
    let answer = self::answer(&[deploy(&rows, json!({}))], json!({}));
    assert_eq!(said(&answer, None), ["expected: 9 boxes have not joined (box-1, box-2, box-3 and 6 more)"]);
}

/// An answer where nothing rolls: v2's deploy ended so, and `more`.
fn ended(state: &str, more: Value) -> StatusAnswer {
    let rows = [row("box-1", "done", "")];
    let end = json!({"state": state, "ended_at": "2026-01-01T00:05:00Z", "reason": "why not"});
    answer(&[deploy(&rows, end)], more)
}

#[test]
fn where_nothing_rolls_the_last_end_a_freeze_or_a_window_say_why() {
    assert_eq!(
        said(&ended("deployed", json!({})), None),
        ["deployed: v2 was deployed completely 5m 0s ago; nothing rolls"]
    );
    for (state, text, act) in [
        ("broken", "broken: v2 broke 5m 0s ago: why not", "`deployctl rollback -r app -e staging`"),
        (
            "cancelled",
            "cancelled: the deploy of v2 was cancelled 5m 0s ago: why not",
            "`deployctl start -r app -e staging -t v2`",
        ),
        ("failed", "failed: the deploy of v2 failed 5m 0s ago: why not", "`deployctl start -r app -e staging -t v2`"),
    ] {
        let answer = ended(state, json!({}));
        assert_eq!(said(&answer, None), [text]);
        assert!(next(&answer, None, state).contains(act), "{state}");
    }
    let freeze = json!({"environment": "staging", "by": "ann", "reason": "sale", "at": "2026-01-01T00:00:00Z"});
    let frozen = ended("deployed", json!({"freezes": [freeze]}));
    assert_eq!(said(&frozen, None)[0], "frozen: staging is frozen for 10m 0s now, by ann: sale");
    assert!(next(&frozen, None, "frozen").starts_with("`deployctl unfreeze -e staging`"));
    let closed = json!({"role": "app", "environment": "staging", "opens": "2026-01-02T09:00:00Z"});
    let closed = ended("deployed", json!({"closed": [closed]}));
    let text =
        "outside_window: nothing new starts in app in staging now: the next window opens at 2026-01-02 09:00:00 UTC";
    assert_eq!(said(&closed, None)[0], text);
}

#[test]
fn the_next_release_says_what_keeps_it_away() {
    let upcoming = |more: Value| {
        let mut next = json!({"role": "app", "environment": "staging", "tag": "v3", "status": "available"});
        merge(&mut next, more);
        let answer = ended("deployed", json!({"next": [next]}));
        said(&answer, None).pop().unwrap()
    };
    assert_eq!(upcoming(json!({})), "not_started: v3 is published, and nobody has started it here");
    assert_eq!(upcoming(json!({"status": "broken", "reason": "crash"})), "release_broken: v3 is broken: crash");
    let withheld = json!({"status": "withheld", "reason": "ann rolled back from it"});
    assert_eq!(upcoming(withheld), "release_withheld: v3 is withheld: ann rolled back from it");
    let text = "not_promoted: v3 is complete in dev, and nothing brings it here by itself";
    assert_eq!(upcoming(json!({"from": "dev"})), text);
    assert_eq!(upcoming(json!({"tag": "v2"})), "deployed: v2 was deployed completely 5m 0s ago; nothing rolls");
    assert_eq!(upcoming(json!({"tag": null})), "not_published: no release of app is published");
    let nothing = upcoming(json!({"tag": null, "from": "dev"}));
    assert_eq!(nothing, "not_deployed: nothing was completely deployed in dev yet");
}

#[test]
fn a_promotion_says_what_it_waits_for() {
    let waits = |state: &str, more: Value| {
        let mut promotion = json!({
            "role": "app", "tag": "v3", "from": "dev", "environment": "staging", "source": "app.dev.x",
            "since": "2026-01-01T00:00:00Z", "state": state, "approvals_needed": 1,
        });
        merge(&mut promotion, more);
        ended("deployed", json!({"promotions": [promotion]}))
    };
    let approval = waits("waits_for_approval", json!({}));
    let text = "promotion: v3, complete in dev for 10m 0s, is to come here: it waits for approval";
    assert_eq!(said(&approval, None)[1..], [text]);
    assert_eq!(next(&approval, None, "promotion"), "`deployctl promote -r app --from dev`");
    let bakes = waits("bakes", json!({"until": "2026-01-01T00:20:00Z"}));
    assert!(said(&bakes, None)[1].ends_with("it bakes until 2026-01-01 00:20:00 UTC"), "{:?}", said(&bakes, None));
    let gate = waits("gate", json!({"reason": "errors is 7"}));
    assert!(said(&gate, None)[1].ends_with("it is kept by a gate: errors is 7"));
}

#[test]
fn what_is_queued_and_who_runs_something_else_is_told() {
    let queued = deploy(&[], json!({"state": "queued", "tag": "v3", "id": "app.staging.y"}));
    let rolling = deploy(&[row("box-1", "pulling", "")], json!({}));
    let answer = answer(&[queued, rolling], json!({}));
    assert_eq!(
        said(&answer, None),
        ["pulling: box-1 pulls the image for 1m 0s", "queued: v3 is queued until the deploy of v2 has ended"]
    );
    let runs = json!({"running": [{"role": "app", "environment": "staging", "box": "box-7", "tag": "v1"}]});
    let odd = ended("deployed", runs);
    assert_eq!(said(&odd, None)[1], "other_tag: box-7 runs v1");
    assert_eq!(said(&odd, Some("box-7")), ["no_part: box-7 takes no part in the last deploy, and runs v1"]);
}

#[test]
fn a_place_that_nobody_knows_has_no_reasons_but_what_may_come() {
    let next = json!({"role": "app", "environment": "staging", "tag": null});
    let answer = answer(&[], json!({"next": [next]}));
    assert_eq!(said(&answer, None), ["not_published: no release of app is published"]);
    let shown = lines(Style::plain(), &answer, &place(), &reasons(&answer, &place(), None, now()), now());
    assert_eq!(shown[0], "app in staging: nothing was ever deployed");
    assert_eq!(shown[2], "  next: `deployctl publish -r app -t TAG`");
}
