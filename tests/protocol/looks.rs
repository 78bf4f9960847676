//! Looks at load balancers, shared by the boxes of a place.

use deployctl::{
    coordination::RedisLooks,
    load_balancer::{Asked, LookTurn, SharedLooks, TargetState},
};

use crate::{
    protocol::world::{BASE, SOON, World, on_redis},
    support::wait_for,
};

const GROUP: &str = "arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/app/1";

fn looks(world: &World) -> RedisLooks {
    RedisLooks::new(world.locks())
}

fn turn(asked: Asked) -> LookTurn {
    match asked {
        Asked::Look(turn) => turn,
        other => panic!("a turn was expected: {other:?}"),
    }
}

fn seen(asked: Asked) -> Vec<(String, TargetState)> {
    match asked {
        Asked::Seen(mut seen) => {
            seen.sort_by(|one, other| one.0.cmp(&other.0));
            seen
        }
        other => panic!("a look was expected: {other:?}"),
    }
}

fn targets() -> Vec<(String, TargetState)> {
    let draining = TargetState::Between("draining (Target.DeregistrationInProgress)".to_owned());
    vec![("10.0.0.1:80".to_owned(), TargetState::InService), ("10.0.0.2:80".to_owned(), draining)]
}

#[test]
fn one_box_looks_and_the_others_read_what_it_saw() {
    on_redis(|world| {
        let (one, other) = (looks(world), looks(world));
        let since = other.now().unwrap() - 1;
        let turn = turn(one.ask(GROUP, since, None).unwrap());
        assert!(matches!(other.ask(GROUP, since, None).unwrap(), Asked::Wait(_)), "one looks at a time");
        one.tell(GROUP, &turn, Some(&targets())).unwrap();
        assert_eq!(seen(other.ask(GROUP, since, None).unwrap()), targets());
        assert_eq!(seen(other.ask(GROUP, since, Some("10.0.0.2:80")).unwrap()), targets()[1..]);
        assert_eq!(seen(other.ask(GROUP, since, Some("10.0.0.3:80")).unwrap()), [], "nobody knows this one");
    });
}

#[test]
fn a_look_counts_only_for_what_was_done_before_it_began_and_looks_keep_their_distance() {
    on_redis(|world| {
        let looks = looks(world);
        let first = turn(looks.ask(GROUP, looks.now().unwrap() - 1, None).unwrap());
        looks.tell(GROUP, &first, Some(&targets())).unwrap();
        let acted = looks.now().unwrap();
        assert!(matches!(looks.ask(GROUP, acted, None).unwrap(), Asked::Wait(_)), "the look began before the act");
        let next = wait_for(SOON, "the next look", || match looks.ask(GROUP, acted, None).unwrap() {
            Asked::Look(turn) => Ok(turn),
            other => Err(format!("{other:?}")),
        });
        assert!(next.begun >= first.begun + 2000, "{next:?} after {first:?}");
    });
}

#[test]
fn a_looker_that_fails_or_dies_is_followed_by_another() {
    on_redis(|world| {
        let looks = looks(world);
        let since = looks.now().unwrap() - 1;
        let failed = turn(looks.ask(GROUP, since, None).unwrap());
        looks.tell(GROUP, &failed, None).unwrap();
        let dead = turn(looks.ask(GROUP, since, None).unwrap());
        assert_ne!(failed.token, dead.token);
        // Its lease is over sooner here than after ten seconds.
        assert_eq!(world.redis.command(&["PEXPIRE", &format!("{BASE}looker:{GROUP}"), "1"]), "1");
        let last = wait_for(SOON, "the next looker", || match looks.ask(GROUP, since, None).unwrap() {
            Asked::Look(turn) => Ok(turn),
            other => Err(format!("{other:?}")),
        });
        looks.tell(GROUP, &last, Some(&targets())).unwrap();
        // It was only slow: what it saw is older, and replaces nothing.
        let stale = LookTurn { begun: dead.begun.min(last.begun) - 1, token: dead.token };
        looks.tell(GROUP, &stale, Some(&vec![])).unwrap();
        assert_eq!(seen(looks.ask(GROUP, since, None).unwrap()), targets());
    });
}
