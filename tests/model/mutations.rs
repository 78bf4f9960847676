//! A model that cannot fail proves nothing: changes of the Lua that someone might make, each of which breaks a promise.

use crate::model::engine::{Engine, Mistake};
use crate::model::explore::{Found, explore};
use crate::model::scenarios::{NOTHING, ONE, TWO, ZONES};
use crate::model::state::{Bounds, Budget};

/// The model must find what breaks when `written` stands in the Lua `instead_of` what does, by way of `trouble`.
#[track_caller]
fn is_found(instead_of: &'static str, written: &'static str, bounds: Bounds, trouble: Budget) {
    let engine = Engine::new(Some(Mistake { instead_of, written }));
    match explore(&engine, Bounds { budget: trouble, states: 12_000, ..bounds }) {
        Found::Broken { promise, trace } => println!("{promise}, after {trace:?}"),
        Found::Kept { states, .. } => panic!("{written:?} instead of {instead_of:?}: not noticed in {states} states"),
    }
}

#[test]
fn one_lock_too_many() {
    is_found("if used < n and not full", "if used <= n and not full", TWO, Budget { failures: 1, ..NOTHING });
}

#[test]
fn failed_boxes_use_up_no_lock() {
    let line = "row and row.phase == 'failed' and FOREVER or";
    is_found(line, "", ONE, Budget { failures: 1, ..NOTHING });
}

#[test]
fn only_locks_count_and_not_who_is_out() {
    is_found("math.max(away, lives)", "lives", ONE, Budget { stalls: 1, ..NOTHING });
}

#[test]
fn a_former_holder_frees_its_successors_lock() {
    is_found("if own then delete_lock", "if lock then delete_lock", ONE, Budget { stalls: 1, ..NOTHING });
}

#[test]
fn whoever_ends_is_taken_for_in_service() {
    is_found("if mine and arg.in_service and", "if mine and", ONE, Budget { strandings: 1, ..NOTHING });
}

#[test]
fn grants_after_a_cancel() {
    let line = "if cancel then return reply({ stop";
    is_found(line, "if nil then return reply({ stop", ONE, Budget { cancels: 1, ..NOTHING });
}

#[test]
fn leaving_after_a_cancel() {
    let line = "if cancel then return reply({ refused";
    is_found(line, "if nil then return reply({ refused", ONE, Budget { cancels: 1, ..NOTHING });
}

#[test]
fn remaining_only_falls() {
    is_found("remaining + (is and 1 or -1)", "remaining - 1", ONE, NOTHING);
}

#[test]
fn a_missing_lock_comes_back_over_the_capacity() {
    let line = "if arg.out or free then take_lock";
    is_found(line, "if true then take_lock", ONE, Budget { stalls: 1, strandings: 1, ..NOTHING });
}

#[test]
fn dead_is_whoever_does_not_answer_in_serf() {
    let line = "return now - last > 3 * arg.interval end";
    is_found(line, "return true end", ONE, Budget { suspects: 1, ..NOTHING });
}

#[test]
fn a_hold_holds_nobody() {
    is_found(
        "local blaming = not hand and doc and holder(doc.id, arg.box)",
        "local blaming = nil",
        TWO,
        Budget { blames: 1, ..NOTHING },
    );
}

#[test]
fn grants_at_once_after_a_restart() {
    is_found("now < settled.since + arg.settle", "false", ONE, Budget { restarts: 1, ..NOTHING });
}

#[test]
fn nobody_is_ever_lost() {
    let line = "elseif settled and WORKING[row.phase] and quiet >";
    is_found(line, "elseif nil and quiet >", ONE, Budget { kills: 1, ..NOTHING });
}

#[test]
fn grants_during_a_pause() {
    is_found("and pause_of(doc) or nil", "and nil or nil", ONE, Budget { pauses: 1, ..NOTHING });
}

#[test]
fn leaving_during_a_pause() {
    is_found("or pause_of(doc) then return", "then return", ONE, Budget { pauses: 1, ..NOTHING });
}

#[test]
fn a_step_has_a_place_too_many() {
    let line = "return step_taken(arg.deploy, arg.box) >= places";
    let instead = "return step_taken(arg.deploy, arg.box) > places";
    is_found(line, instead, Bounds { steps: true, ..TWO }, NOTHING);
}

#[test]
fn a_step_counts_only_who_works() {
    is_found("'registering', 'done', 'lost' }", "'registering' }", Bounds { steps: true, ..TWO }, NOTHING);
}

#[test]
fn zones_bind_nobody() {
    is_found("local full = of_mine and zone_is_full(", "local full = nil and zone_is_full(", ZONES, NOTHING);
}

#[test]
fn a_zone_has_one_too_many() {
    is_found("if used < n then return nil end", "if used <= n then return nil end", ZONES, NOTHING);
}

#[test]
fn a_missing_lock_comes_back_over_the_capacity_of_its_zone() {
    let line = " and not (rolls(doc, arg.deploy) and zone_wait('used', arg.box, doc))";
    is_found(line, "", ZONES, Budget { stalls: 1, strandings: 1, ..NOTHING });
}

#[test]
fn a_box_does_not_count_in_its_zone() {
    is_found("if zone ~= '' then write(set .. ':' .. zone, counts[set]) end", "", ZONES, NOTHING);
}

/// Each place where a script must say how a box counts from then on.
#[test]
fn a_script_forgets_to_say_how_a_box_counts() {
    let granted = "weigh(arg.box)\nreturn reply({ granted";
    is_found(granted, "return reply({ granted", ONE, NOTHING);
    is_found("weigh(arg.box)\nreturn reply({ left", "return reply({ left", ONE, NOTHING);
    is_found("weigh(arg.box)\nif doc and not arg.quiet", "if doc and not arg.quiet", ONE, NOTHING);
    let renewed = "weigh(arg.box)\nreturn reply({ cancel";
    is_found(renewed, "return reply({ cancel", ONE, NOTHING);
    is_found("weigh(box)\n  freed()", "freed()", TWO, Budget { deaths: 1, ..NOTHING });
}

#[test]
fn counts_outlive_the_deploy_that_they_were_made_for() {
    let line = "  distrust()\nend\n\n-- The service looks";
    is_found(line, "end\n\n-- The service looks", ONE, Budget { strandings: 1, ..NOTHING });
}

#[test]
fn a_glance_sees_no_lost_box() {
    is_found("or working_before(now - arg.ttl) > 0", "", ONE, Budget { kills: 1, ..NOTHING });
}

#[test]
fn a_glance_sees_no_dead_box() {
    is_found("or may_be_gone(arg.failed)", "", ONE, Budget { deaths: 1, ..NOTHING });
}

#[test]
fn a_glance_does_not_see_that_no_lock_is_left() {
    is_found("'inf', 'inf') >= n or", "'inf', 'inf') > n or", ONE, Budget { failures: 1, ..NOTHING });
}
