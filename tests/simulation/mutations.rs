//! A simulation that cannot fail proves nothing: changes of the Lua that someone might make, each of which breaks a rule.
//!
//! Those under `noticed` are asserted. Those under `counted` are not: an ignored test says how many seeds notice each.

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
    (
        noticed { $($name:ident: $instead_of:literal => $written:literal from $seed:literal;)* }
        counted { $($other:ident: $other_instead_of:literal => $other_written:literal;)* }
    ) => {
        $(#[test]
        fn $name() {
            is_noticed($instead_of, $written, $seed);
        })*

        /// How many of `SEEDS` notice each of them: for people.
        #[test]
        #[ignore = "takes minutes"]
        fn how_many_seeds_notice() {
            let seeds = std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
            for (name, instead_of, written) in [
                $((stringify!($name), $instead_of, $written),)*
                $((stringify!($other), $other_instead_of, $other_written),)*
            ] {
                let mistake = Mistake { instead_of, written };
                let told = (1..=seeds).map(|seed| run(seed, Some(mistake)));
                let told: Vec<Told> = told.filter(|told| told.broken.is_some()).collect();
                let first = told.first().map(|told| (told.seed, told.broken.clone().unwrap()));
                println!("{:4} of {seeds} notice {name}, {first:?}", told.len());
            }
        }
    };
}

mutations! {
    noticed {
        one_lock_too_many: "if used < n and not full" => "if used <= n and not full" from 1;
        failed_boxes_use_up_no_lock:
        "row and row.phase == 'failed' and FOREVER or" => "" from 12;
        only_locks_count_and_not_who_is_out:
        "math.max(away, lives)" => "lives" from 12;
        whoever_ends_is_taken_for_in_service: "if mine and arg.in_service and" => "if mine and" from 1;
        grants_after_a_cancel: "if cancel then return reply({ stop" => "if nil then return reply({ stop" from 2;
        leaving_after_a_cancel: "if cancel then return reply({ refused" => "if nil then return reply({ refused" from 8;
        remaining_only_falls: "remaining + (is and 1 or -1)" => "remaining - 1" from 1;
        dead_is_whoever_does_not_answer_in_serf: "return now - last > 3 * arg.interval end" => "return true end" from 3;
        a_grant_is_not_counted: "weigh(arg.box)\nreturn reply({ granted" => "return reply({ granted" from 1;
        zones_bind_nobody: "local full = of_mine and zone_is_full(" => "local full = nil and zone_is_full(" from 4;
        grants_at_once_after_a_restart: "now < settled.since + arg.settle" => "false" from 2;
    }
    // Not seen to be noticed within the few seeds that a test can afford: only counted, by the ignored test above.
    counted {
        leaving_is_not_counted: "weigh(arg.box)\nreturn reply({ left" => "return reply({ left";
        who_is_buried_still_counts: "weigh(box)\n  freed()" => "freed()";
        a_former_holder_frees_its_successors_lock: "if own then delete_lock" => "if lock then delete_lock";
        a_hold_holds_nobody: "local blaming = not hand and doc and holder(doc.id, arg.box)" => "local blaming = nil";
        nobody_is_ever_lost: "elseif settled and WORKING[row.phase] and quiet >" => "elseif nil and quiet >";
        grants_during_a_pause: "and pause_of(doc) or nil" => "and nil or nil";
        leaving_during_a_pause: "or pause_of(doc) then return" => "then return";
        the_end_is_judged_while_somebody_works:
        "if working then return reply({ ended = false, state = 'rolling', silent = 0 }) end" => "";
        leaving_during_a_hold: "if holder(arg.deploy, arg.box) or pause_of(doc)" => "if pause_of(doc)";
        leaving_does_not_count_who_is_out: "if away >= n then" => "if false then";
        finish_ignores_a_successor: "local successor = arg.token and" => "local successor = nil and";
        broken_does_not_outweigh_a_cancel:
        "if old and (old.broken or not cancel.broken) then return old end" => "if old then return old end";
        lost_at_once: "quiet > math.max(arg.ttl, outs[box] and outs[box].ttl or 0)" => "quiet > arg.interval";
        who_was_gone_is_not_counted_again: "or row.phase == 'gone' or row.phase == 'lost' or arg.retry" => "or arg.retry";
        a_token_that_has_ended_lives_again: "return ended and string.find(ended, token, 1, true) ~= nil" => "return false";
        what_is_queued_stays_queued: "end_queued(queued, doc.tag .. ' began after this was queued')" => "";
        a_service_that_was_away_judges_at_once:
        "local settled = now >= math.max(epoch().since, tally(id, 'gap')) + 3 * arg.interval" => "local settled = true";
        silence_alone_buries_everybody: "if #arg.alive > 0 and by_silence > 0 then" => "if true then";
        deployed_with_whoever_is_left: "if tally(id, 'done') < wanted then" => "if false then";
        the_floor_is_not_looked_at: "if serving and not mine and others < size - n then" => "if false then";
        an_out_entry_that_is_missing_stays_missing: "if arg.out and not mine and not finished then" => "if false then";
    }
}
