//! A simulation that cannot fail proves nothing: changes of the Lua that someone might make, each of which breaks a rule.
//!
//! What only a rare schedule would notice is not here, but in `model::mutations` or in `protocol`.

use crate::{
    model::engine::Mistake,
    simulation::schedule::{Told, run},
};

/// A rule breaks when `written` stands in the Lua `instead_of` what does, within so many seeds from `from` on.
#[track_caller]
fn is_noticed(instead_of: &'static str, written: &'static str, from: u64) {
    const SEEDS: u64 = 20;
    let told = first(Mistake { instead_of, written }, from, SEEDS);
    let told = told.unwrap_or_else(|| panic!("{written:?} instead of {instead_of:?}: not noticed in {SEEDS} seeds"));
    println!("the seed {} notices: {}", told.seed, told.broken.unwrap());
}

fn first(mistake: Mistake, from: u64, seeds: u64) -> Option<Told> {
    (from..from + seeds).map(|seed| run(seed, Some(mistake))).find(|told| told.broken.is_some())
}

macro_rules! mutations {
    ($($name:ident: $instead_of:literal => $written:literal from $seed:literal;)*) => {
        $(#[test]
        fn $name() {
            is_noticed($instead_of, $written, $seed);
        })*
    };
}

mutations! {
    one_lock_too_many: "if used < n and not full" => "if used <= n and not full" from 9;
    failed_boxes_use_up_no_lock:
    "row and row.phase == 'failed' and FOREVER or" => "" from 13;
    only_locks_count_and_not_who_is_out:
    "math.max(away, lives)" => "lives" from 4;
    whoever_ends_is_taken_for_in_service: "if mine and arg.in_service and" => "if mine and" from 4;
    grants_after_a_cancel: "if cancel then return reply({ stop" => "if nil then return reply({ stop" from 1;
    leaving_after_a_cancel: "if cancel then return reply({ refused" => "if nil then return reply({ refused" from 56;
    remaining_only_falls: "remaining + (is and 1 or -1)" => "remaining - 1" from 1;
    dead_is_whoever_does_not_answer_in_serf: "return now - last > 3 * arg.interval end" => "return true end" from 2;
    a_grant_is_not_counted: "weigh(arg.box)\nreturn reply({ granted" => "return reply({ granted" from 13;
    zones_bind_nobody: "local full = of_mine and zone_is_full(" => "local full = nil and zone_is_full(" from 4;
    grants_at_once_after_a_restart: "now < settled.since + arg.settle" => "false" from 1;
    a_former_holder_frees_its_successors_lock: "if own then delete_lock" => "if lock then delete_lock" from 21;
    grants_during_a_pause: "and pause_of(doc) or nil" => "and nil or nil" from 6;
    leaving_during_a_pause: "or pause_of(doc) then return" => "then return" from 6;
    the_end_is_judged_while_somebody_works:
    "if working then return reply({ ended = false, state = 'rolling', silent = 0 }) end" => "" from 1;
    lost_at_once: "quiet > math.max(arg.ttl, outs[box] and outs[box].ttl or 0)" => "quiet > arg.interval" from 1;
    a_token_that_has_ended_lives_again:
    "return ended and string.find(ended, token, 1, true) ~= nil" => "return false" from 23;
    what_is_queued_stays_queued: "end_queued(queued, doc.tag .. ' began after this was queued')" => "" from 50;
    silence_alone_buries_everybody: "if #arg.alive > 0 and by_silence > 0 then" => "if true then" from 23;
}
