//! What a worker has to do on its box, decided from what the service says and what the box looks like. Pure.

use crate::{
    api::{Current, Kind, Phase, State},
    coordination::SCHEMA,
    exit::Exit,
    names::{BoxName, Tag},
};

/// One release to be brought to this box.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub struct Plan {
    /// The deploy; `hand.BOX` where the box works without one.
    pub id: String,
    /// The tag of the release.
    pub tag: Tag,
    /// The kind of deploy, which programs are told.
    pub kind: Kind,
    /// The box takes part in the deploy `id`; else it works by hand, under the same locks.
    pub joins: bool,
    /// It needs a lock: every box that may be serving does.
    pub locked: bool,
    /// The container is to be made anew even if it runs the release.
    pub recreate: bool,
    /// It is allowed to call the release broken.
    pub may_blame: bool,
    /// A person insists: a box that had failed in this deploy tries again.
    pub retry: bool,
}

/// Why the worker was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// An event, a boot or a timer: bring the box to what it should run.
    Heal,
    /// A person on the box, perhaps with a tag.
    Run(Option<Tag>),
    /// A person brings the box back that they kept out: it takes part again where its row says `cancelled`.
    Return,
}

impl Trigger {
    /// Whether a person has said which tag.
    #[must_use]
    pub fn names_tag(&self) -> bool {
        matches!(self, Self::Run(Some(_)))
    }
}

/// What the box looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub struct Observation {
    /// The box's name.
    pub name: BoxName,
    /// It stands in `out`, or its journal says that it was interrupted.
    pub out: bool,
    /// Why a person keeps it out, if one does.
    pub kept_out: Option<String>,
    /// The tag that last worked here, and when it was brought by hand.
    pub good: Option<(Tag, Option<i64>)>,
    /// It has never served: no container, no good tag, not in a load balancer.
    pub is_new: bool,
    /// The tag that last worked here runs and is healthy and in service.
    pub serves: bool,
    /// Where it stands in the deploy that rolls.
    pub row: Option<Phase>,
    /// Other boxes run the release that rolls.
    pub proven: bool,
    /// When the last complete deploy ended, in milliseconds.
    pub complete_at: Option<i64>,
}

impl Trigger {
    /// Nobody asked for this release on this box: it does what the fleet does.
    fn is_unasked(&self) -> bool {
        matches!(self, Self::Heal | Self::Return)
    }
}

/// What the worker does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Bring this release here.
    Do(Plan),
    /// Nothing to do, and why.
    Nothing(String),
    /// Not allowed, why, and how the command ends.
    Refuse(Exit, String),
}

impl Plan {
    fn by_hand(observed: &Observation, tag: Tag, kind: Kind, locked: bool) -> Decision {
        Decision::Do(Self {
            id: format!("hand.{}", observed.name),
            tag,
            kind,
            joins: false,
            locked,
            recreate: false,
            may_blame: false,
            retry: false,
        })
    }
}

/// Decides what a worker does that was called with `trigger`. `current` is the service's answer, `schema` that of the deploy
/// in Redis.
#[must_use]
pub fn decide(trigger: &Trigger, current: Option<&Current>, schema: u32, observed: &Observation) -> Decision {
    if let Some(reason) = &observed.kept_out {
        let text = format!("kept out by hand ({reason}): `deployctl in` brings it back");
        return match trigger {
            Trigger::Run(_) => Decision::Refuse(Exit::Blocked, text),
            Trigger::Heal | Trigger::Return => Decision::Nothing(text),
        };
    }
    let rolling = current.map(|c| &c.deploy).filter(|deploy| deploy.state == State::Rolling);
    if let Some(deploy) = rolling {
        if schema > SCHEMA {
            let text = format!("the deploy {} needs a newer deployctl: install it on this box first", deploy.id);
            return Decision::Refuse(Exit::Failed, text);
        }
        if let Trigger::Run(Some(tag)) = trigger
            && *tag != deploy.tag
        {
            let text = format!("{} is rolling: cancel it first, or run without a tag to join it", deploy.tag);
            return Decision::Refuse(Exit::Blocked, text);
        }
        let over = matches!(observed.row, Some(Phase::Done | Phase::Failed | Phase::RolledBack | Phase::Cancelled));
        let last_good = deploy.last_good.clone();
        let returns = *trigger == Trigger::Return && observed.row == Some(Phase::Cancelled);
        if trigger.is_unasked() && over && !returns {
            return match (observed.out, last_good) {
                (true, Some(tag)) if observed.row != Some(Phase::Done) => {
                    Plan::by_hand(observed, tag, Kind::Sync, true)
                }
                _ => Decision::Nothing(format!("its part in {} is over", deploy.id)),
            };
        }
        if observed.is_new
            && !observed.proven
            && trigger.is_unasked()
            && let Some(tag) = last_good
        {
            return Plan::by_hand(observed, tag, Kind::Sync, false);
        }
        // A new box proves nothing of a release that others already run.
        let locked = !(observed.is_new && observed.proven);
        return Decision::Do(Plan {
            id: deploy.id.clone(),
            tag: deploy.tag.clone(),
            kind: deploy.kind,
            joins: true,
            locked,
            recreate: deploy.recreate,
            may_blame: locked && deploy.last_good.as_ref() != Some(&deploy.tag),
            retry: !trigger.is_unasked() || returns,
        });
    }

    match (trigger, current) {
        (Trigger::Run(Some(tag)), _) => Plan::by_hand(observed, tag.clone(), Kind::Manual, true),
        (Trigger::Run(None), Some(current)) => Plan::by_hand(observed, current.deploy.tag.clone(), Kind::Manual, true),
        (Trigger::Run(None), None) => Decision::Refuse(
            Exit::Failed,
            "nothing was ever completely deployed here: name a tag with --tag".to_owned(),
        ),
        (Trigger::Heal | Trigger::Return, current) => heal(current, observed),
    }
}

/// What a box does while no deploy rolls:
///
/// - It is out of service, since its work was interrupted: it is brought back.
/// - It is new: it gets the release of the last complete deploy.
/// - It serves that release: nothing.
/// - It serves another one: it gets that release. But it is left alone when the newest deploy did not end well, or when a
///   person has put that other release there since, for a person may want it so.
/// - It does not serve: it gets that release, or its own again when the newest deploy did not end well.
fn heal(current: Option<&Current>, observed: &Observation) -> Decision {
    let Some(current) = current else {
        return match &observed.good {
            Some((tag, _)) if observed.out => Plan::by_hand(observed, tag.clone(), Kind::Sync, true),
            _ => Decision::Nothing("nothing was ever completely deployed here".to_owned()),
        };
    };
    let tag = current.deploy.tag.clone();
    if observed.out {
        return Plan::by_hand(observed, tag, Kind::Sync, true);
    }
    if observed.is_new {
        return Plan::by_hand(observed, tag, Kind::Sync, false);
    }
    let (runs, by_hand_at) = match &observed.good {
        Some((good, at)) => (Some(good), *at),
        None => (None, None),
    };
    if observed.serves {
        if runs == Some(&tag) {
            return Decision::Nothing(format!("runs {tag} already"));
        }
        if current.latest != State::Deployed {
            let text = format!("in service, and the last deploy ended {}: left alone", current.latest);
            return Decision::Nothing(text);
        }
        if by_hand_at > observed.complete_at {
            return Decision::Nothing("a person ran another tag here since the last deploy: left alone".to_owned());
        }
    }
    // One that does not serve is mended on its own tag while people find out what the last deploy's end means.
    match runs {
        Some(good) if current.latest != State::Deployed => Plan::by_hand(observed, good.clone(), Kind::Sync, true),
        _ => Plan::by_hand(observed, tag, Kind::Sync, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Deploy;

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    fn observe() -> Observation {
        Observation {
            name: "box-1".parse().unwrap(),
            out: false,
            kept_out: None,
            good: Some((tag("v1"), None)),
            is_new: false,
            serves: true,
            row: None,
            proven: false,
            complete_at: Some(1000),
        }
    }

    fn current(state: State, tag_name: &str, latest: State) -> Current {
        let deploy = Deploy {
            id: "app.staging.x".to_owned(),
            role: "app".parse().unwrap(),
            environment: "staging".parse().unwrap(),
            tag: tag(tag_name),
            kind: Kind::Deploy,
            state,
            size: 6,
            locks: 2,
            remaining: 6,
            by: "ci".to_owned(),
            reason: None,
            started_at: String::new(),
            ended_at: None,
            max_parallel: crate::parallel::MaxParallel::default(),
            recreate: false,
            force: false,
            last_good: Some(tag("v1")),
            source: None,
            step: None,
            pause: None,
            gate: None,
            compare: None,
            zones: Vec::new(),
            boxes: Vec::new(),
        };
        Current { deploy, latest }
    }

    fn planned(decision: Decision) -> Plan {
        match decision {
            Decision::Do(plan) => plan,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_rolling_deploy_is_joined_under_a_lock() {
        let rolling = current(State::Rolling, "v2", State::Rolling);
        let plan = planned(decide(&Trigger::Heal, Some(&rolling), SCHEMA, &observe()));
        assert!(plan.joins && plan.locked && plan.may_blame && !plan.retry);
        assert_eq!(plan.tag, tag("v2"));
    }

    #[test]
    fn a_rollback_to_the_last_good_tag_blames_nobody() {
        let rolling = current(State::Rolling, "v1", State::Rolling);
        assert!(!planned(decide(&Trigger::Heal, Some(&rolling), SCHEMA, &observe())).may_blame);
    }

    #[test]
    fn a_finished_part_is_not_done_again_unless_a_person_insists() {
        let rolling = current(State::Rolling, "v2", State::Rolling);
        let failed = Observation { row: Some(Phase::Failed), ..observe() };
        assert!(matches!(decide(&Trigger::Heal, Some(&rolling), SCHEMA, &failed), Decision::Nothing(_)));
        assert!(planned(decide(&Trigger::Run(None), Some(&rolling), SCHEMA, &failed)).retry);
        let out = Observation { out: true, ..failed };
        let restored = planned(decide(&Trigger::Heal, Some(&rolling), SCHEMA, &out));
        assert!(!restored.joins && restored.tag == tag("v1"));
    }

    #[test]
    fn another_tag_by_hand_waits_for_the_deploy_that_rolls() {
        let rolling = current(State::Rolling, "v2", State::Rolling);
        let refused = decide(&Trigger::Run(Some(tag("v3"))), Some(&rolling), SCHEMA, &observe());
        assert!(matches!(refused, Decision::Refuse(Exit::Blocked, _)));
        assert!(planned(decide(&Trigger::Run(Some(tag("v2"))), Some(&rolling), SCHEMA, &observe())).joins);
    }

    #[test]
    fn a_box_too_old_for_the_deploy_stops() {
        let rolling = current(State::Rolling, "v2", State::Rolling);
        assert!(matches!(
            decide(&Trigger::Heal, Some(&rolling), SCHEMA + 1, &observe()),
            Decision::Refuse(Exit::Failed, _)
        ));
    }

    #[test]
    fn a_new_box_takes_what_is_proven_without_a_lock() {
        let new = Observation { is_new: true, good: None, serves: false, ..observe() };
        let rolling = current(State::Rolling, "v2", State::Rolling);
        let first = planned(decide(&Trigger::Heal, Some(&rolling), SCHEMA, &new));
        assert!(!first.joins && !first.locked && first.tag == tag("v1"));
        let proven = Observation { proven: true, ..new.clone() };
        let first = planned(decide(&Trigger::Heal, Some(&rolling), SCHEMA, &proven));
        assert!(first.joins && !first.locked && !first.may_blame && first.tag == tag("v2"));
        let complete = current(State::Deployed, "v2", State::Deployed);
        let first = planned(decide(&Trigger::Heal, Some(&complete), SCHEMA, &new));
        assert!(!first.joins && !first.locked && first.tag == tag("v2"));
    }

    #[test]
    fn a_box_that_a_person_brings_back_takes_part_again() {
        let rolling = current(State::Rolling, "v2", State::Rolling);
        let left_alone = Observation { row: Some(Phase::Cancelled), out: true, serves: false, ..observe() };
        let plan = planned(decide(&Trigger::Return, Some(&rolling), SCHEMA, &left_alone));
        assert!(plan.joins && plan.retry && plan.tag == tag("v2"));
        let failed = Observation { row: Some(Phase::Failed), ..left_alone };
        assert_eq!(planned(decide(&Trigger::Return, Some(&rolling), SCHEMA, &failed)).tag, tag("v1"));
    }

    #[test]
    fn healing_does_not_fight_people() {
        let after_cancel = current(State::Deployed, "v2", State::Cancelled);
        assert!(matches!(decide(&Trigger::Heal, Some(&after_cancel), SCHEMA, &observe()), Decision::Nothing(_)));
        let complete = current(State::Deployed, "v2", State::Deployed);
        assert_eq!(planned(decide(&Trigger::Heal, Some(&complete), SCHEMA, &observe())).tag, tag("v2"));
        let by_hand = Observation { good: Some((tag("v9"), Some(2000))), ..observe() };
        assert!(matches!(decide(&Trigger::Heal, Some(&complete), SCHEMA, &by_hand), Decision::Nothing(_)));
        let kept = Observation { kept_out: Some("disk".to_owned()), ..observe() };
        assert!(matches!(decide(&Trigger::Heal, Some(&complete), SCHEMA, &kept), Decision::Nothing(_)));
    }

    #[test]
    fn an_interrupted_box_is_restored() {
        let out = Observation { out: true, serves: false, ..observe() };
        let after_cancel = current(State::Deployed, "v1", State::Cancelled);
        assert_eq!(planned(decide(&Trigger::Heal, Some(&after_cancel), SCHEMA, &out)).tag, tag("v1"));
        assert_eq!(planned(decide(&Trigger::Heal, None, SCHEMA, &out)).tag, tag("v1"));
    }

    #[test]
    fn a_box_that_does_not_serve_is_mended_on_its_own_tag_after_a_bad_end() {
        let down = Observation { serves: false, ..observe() };
        let after_failure = current(State::Deployed, "v2", State::Failed);
        assert_eq!(planned(decide(&Trigger::Heal, Some(&after_failure), SCHEMA, &down)).tag, tag("v1"));
    }
}
