//! What stands in Redis, and for how long.

use deployctl::api::Phase;

use crate::protocol::world::{BASE, LONG, alive, on_redis, patient};

const THIRTY_DAYS: usize = 30 * 24 * 3600 * 1000;

#[test]
fn every_key_has_the_places_hash_tag_and_a_known_name() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        let (mut a, mut b) = (world.worker("a", "d"), world.worker("b", "d"));
        a.go_out();
        b.acquire();
        a.hold(LONG);
        world.locks().queue(&crate::protocol::world::doc("d2")).unwrap();
        world.cancel(false);
        a.finish(Phase::Failed, false);
        b.finish(Phase::Cancelled, true);
        let known = [
            "current", "complete", "queued", "out", "running", "epoch", "wake", "deploys", "walk", "full", "holders",
            "ended", "used", "away", "taking", "free", "counted",
        ];
        for key in world.redis.keys("*") {
            let rest = key.strip_prefix(BASE).unwrap_or_else(|| panic!("{key} is outside {BASE}"));
            let named = known.contains(&rest) || rest.starts_with("lock:") || rest.starts_with("deploy:d");
            assert!(named, "{key}");
        }
        for part in ["boxes", "remaining", "cancel"] {
            assert!(!world.redis.keys(&format!("{BASE}deploy:d:{part}")).is_empty(), "deploy:ID:{part}");
        }
    });
}

#[test]
fn keys_have_the_shapes_that_others_read() {
    on_redis(|world| {
        world.begin("d", &["a", "b", "c"], "1/3");
        world.worker("a", "d").go_out();
        let json = |words: &[&str]| -> serde_json::Value { serde_json::from_str(&world.redis.command(words)).unwrap() };
        let current = json(&["GET", &format!("{BASE}current")]);
        assert_eq!((&current["id"], &current["tag"], &current["state"]), (&"d".into(), &"d".into(), &"rolling".into()));
        assert_eq!((&current["kind"], &current["schema"]), (&"deploy".into(), &1.into()));
        let lock = json(&["GET", &format!("{BASE}lock:1")]);
        assert_eq!((&lock["box"], &lock["deploy"]), (&"a".into(), &"d".into()));
        assert!(lock["token"].is_string() && lock["since"].is_u64());
        let out = json(&["HGET", &format!("{BASE}out"), "a"]);
        assert_eq!((&out["deploy"], &out["token"]), (&"d".into(), &lock["token"]));
        assert_eq!(json(&["HGET", &format!("{BASE}deploy:d:boxes"), "a"])["phase"], "draining");
        assert_eq!(world.redis.command(&["GET", &format!("{BASE}deploy:d:remaining")]), "3");
    });
}

#[test]
fn an_ended_deploy_expires_after_thirty_days_and_what_runs_never_does() {
    on_redis(|world| {
        world.begin("d", &["a"], "1/3");
        let mut a = world.worker("a", "d");
        a.go_out();
        a.hold(LONG);
        a.lift_hold();
        a.finish(Phase::Done, true);
        assert!(
            world
                .redis
                .keys(&format!("{BASE}deploy:d:*"))
                .iter()
                .all(|key| { world.redis.command(&["TTL", key]) == "-1" }),
            "while it rolls nothing of it expires"
        );
        world.look("d", &alive(&["a"]), &patient());
        a.finish(Phase::Done, true);
        for key in world.redis.keys(&format!("{BASE}deploy:d:*")) {
            let life = world.redis.command_count(&["PTTL", &key]);
            assert!((THIRTY_DAYS - 60_000..=THIRTY_DAYS).contains(&life), "{key}: {life} ms");
        }
        for part in ["current", "complete", "running", "epoch", "deploys"] {
            let key = format!("{BASE}{part}");
            let mut ttl = redis::cmd("TTL");
            let life: i64 = ttl.arg(&key).query(&mut world.redis.connection()).unwrap();
            assert!(life == -1 || part == "running" && life == -2, "{key}: {life}");
        }
    });
}

#[test]
fn two_prefixes_on_one_redis_do_not_meet() {
    on_redis(|world| {
        world.begin("d", &["a"], "1/3");
        let place = deployctl::names::Place { environment: "staging".parse().unwrap(), role: "app".parse().unwrap() };
        let url = deployctl::secret::Secret::new(world.redis.url());
        let mut other = deployctl::coordination::Coordinator::new(
            deployctl::coordination::RedisConnection::new(&url, "other").unwrap(),
            &place,
        );
        assert_eq!(other.current().unwrap(), None);
    });
}

#[test]
fn the_wake_list_is_never_longer_than_there_are_waiters() {
    on_redis(|world| {
        let boxes = ["a", "b", "c", "e", "f", "g"];
        world.begin("d", &boxes, "1/3");
        let mut workers: Vec<_> = boxes[..4].iter().map(|name| world.worker(name, "d")).collect();
        let waiters = |world: &crate::protocol::world::World| {
            world.deploy("d").boxes.iter().filter(|row| row.phase == Phase::Waiting).count()
        };
        for worker in &mut workers {
            worker.complete();
            worker.finish(Phase::Done, true);
            assert!(world.wakes() <= waiters(world), "{} wake-ups for {} waiters", world.wakes(), waiters(world));
        }
        let _waiting = [world.worker("f", "d"), world.worker("g", "d")];
        for _ in 0..5 {
            workers[0].finish(Phase::Done, true);
            workers[0].lift_hold();
            assert!(world.wakes() <= 2);
        }
        world.cancel(true);
        assert_eq!(world.wakes(), 2, "a cancel wakes all");
        world.supersede("d2", &boxes);
        assert!(world.wakes() <= 2);
    });
}
