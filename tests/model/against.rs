//! The Redis in memory, held against a real one: the same commands, and the same scripts, must have the same answers.

use deployctl::coordination::scripts::Script;
use serde_json::{Value as Json, json};

use crate::model::engine::{BASE, Engine};
use crate::model::memory::{Memory, Reply};
use crate::model::state::NAMES;
use crate::support::{Redis, Scope, tools_missing};

fn on_redis(test: impl FnOnce(&Redis)) {
    if let Some(missing) = tools_missing(&["redis-server"]) {
        eprintln!("SKIPPED: needs {missing}; `make install-tools` installs it");
        return;
    }
    let scope = Scope::new();
    test(&Redis::start(&scope));
}

/// Numbers that look picked.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

/// A command as the scripts use it; each key holds one kind of data.
fn command(dice: &mut Dice) -> Vec<String> {
    let patterns = [
        "GET k",
        "SET k v",
        "SET k v PX 60000",
        "SET k v KEEPTTL",
        "MGET k k",
        "DEL k",
        "DEL h",
        "PEXPIRE k 60000",
        "PERSIST k",
        "PTTL k",
        "HGET h f",
        "HSET h f v",
        "HSET h f v f v",
        "HDEL h f",
        "HMGET h f f",
        "HGETALL h",
        "HKEYS h",
        "HVALS h",
        "HLEN h",
        "HINCRBY n f 1",
        "HINCRBY n f -1",
        "SADD s v",
        "SREM s v",
        "SISMEMBER s v",
        "SMEMBERS s",
        "LLEN l",
        "RPUSH l v",
        "LPOP l 2",
        "LPUSH l v",
        "LRANGE l 0 -1",
        "LTRIM l 0 1",
        "ZADD z NX 2 v",
        "ZCARD z",
        "ZREVRANGE z 0 -1",
        "ZREMRANGEBYRANK z 0 -3",
        "HEXISTS h f",
        "HSETNX h f v",
        "SET k v NX PX 60000",
        "ZADD z 1 v",
        "ZADD z 3 v",
        "ZREMRANGEBYSCORE z 0 2",
        "ZADD z 1 v 2 v",
        "ZADD z inf v",
        "ZREM z v",
        "ZCARD z",
        "ZSCORE z v",
        "ZRANGE z 0 1",
        "ZRANGE z -1 -1 WITHSCORES",
        "ZCOUNT z -inf (2",
        "ZCOUNT z inf inf",
        "ZRANGEBYSCORE z -inf (3",
        "ZRANGEBYSCORE z inf inf",
        "ZRANGEBYSCORE z 1 3 LIMIT 0 1",
        "SCARD s",
        "HSCAN h 0",
        "PEXPIRE h 60000",
        "PERSIST h",
    ];
    let words = dice.of(&patterns).split(' ').map(str::to_owned).collect::<Vec<_>>();
    let numbered = |word: String, dice: &mut Dice| match word.as_str() {
        "k" | "h" | "n" | "s" | "l" | "z" | "f" | "v" => format!("{word}{}", dice.below(3)),
        _ => word,
    };
    words.into_iter().map(|word| numbered(word, dice)).collect()
}

fn reply(value: redis::Value) -> Reply {
    match value {
        redis::Value::Nil => Reply::Nothing,
        redis::Value::Okay => Reply::Fine,
        redis::Value::Int(number) => Reply::Number(number),
        redis::Value::BulkString(bytes) => Reply::Text(String::from_utf8(bytes).unwrap()),
        redis::Value::Array(items) => Reply::List(items.into_iter().map(reply).collect()),
        other => panic!("{other:?}"),
    }
}

/// What has no order of its own, in one.
fn ordered(words: &[String], reply: Reply) -> Reply {
    let step = match words[0].as_str() {
        "HGETALL" => 2,
        "HSCAN" => return Reply::List(vec![ordered(&["HGETALL".to_owned()], page(reply))]),
        "HKEYS" | "HVALS" | "SMEMBERS" => 1,
        _ => return reply,
    };
    let Reply::List(items) = reply else { return reply };
    let mut chunks: Vec<String> = items.chunks(step).map(|chunk| format!("{chunk:?}")).collect();
    chunks.sort();
    Reply::List(chunks.into_iter().map(Reply::Text).collect())
}

/// The one page of a small hash.
fn page(reply: Reply) -> Reply {
    let Reply::List(mut parts) = reply else { return reply };
    assert_eq!(parts[0], Reply::Text("0".to_owned()));
    parts.remove(1)
}

#[test]
fn random_commands_have_the_same_answers() {
    on_redis(|real| {
        let (mut connection, mut memory, mut dice) = (real.connection(), Memory::default(), Dice(1));
        for _ in 0..4000 {
            let words = command(&mut dice);
            let mut command = redis::cmd(&words[0]);
            command.arg(&words[1..]);
            let real = reply(command.query(&mut connection).unwrap());
            if words[0] == "PTTL" {
                let expires = memory.expires(&words[1]);
                let Reply::Number(life) = real else { panic!("{real:?}") };
                assert_eq!(
                    expires,
                    [None, Some(false)].get(usize::try_from(life + 2).unwrap()).copied().unwrap_or(Some(true))
                );
                continue;
            }
            assert_eq!(ordered(&words, memory.call(&words)), ordered(&words, real), "{words:?}");
        }
    });
}

#[test]
fn a_key_expires_when_its_time_has_passed() {
    on_redis(|real| {
        let words = ["SET", "k", "v", "PX", "200"].map(str::to_owned);
        let (mut memory, key) = (Memory::default(), "k".to_owned());
        memory.call(&words);
        memory.advance(199);
        assert!(memory.get(&key).is_some());
        memory.advance(1);
        assert!(memory.get(&key).is_none());
        real.command(&["SET", "k", "v", "PX", "200"]);
        real.wait_value(std::time::Duration::from_secs(5), "k", "");
    });
}

/// A call of a script that makes sense here and there.
fn call(dice: &mut Dice) -> (Script, Json) {
    let (name, deploy) = (dice.of(&NAMES), dice.of(&["d1", "d2"]));
    let (suffix, token) = (dice.below(2) + 1, format!("{name}{}", dice.below(3)));
    let flag = dice.below(2) == 0;
    let phase = dice.of(&["pulling", "starting", "registering"]);
    let long = 600_000;
    match dice.below(12) {
        0 => {
            let doc = json!({
                "id": deploy, "role": "app", "environment": "staging", "tag": "v1", "kind": "deploy", "by": "ci", "max_parallel": "2",
            });
            (Script::Begin, json!({"doc": doc, "boxes": ["a", "b"], "supersede": flag, "gated": false}))
        }
        1 | 2 => (Script::Join, json!({"box": name, "deploy": deploy, "boxes": NAMES, "retry": flag})),
        3 | 4 => (Script::Acquire, json!({"box": name, "deploy": deploy, "token": token, "ttl": long, "settle": 0})),
        5 | 6 => {
            let survey = json!({"key": "tg", "me": name, "in_service": NAMES});
            let args = json!({"box": name, "deploy": deploy, "suffix": suffix, "token": token, "ttl": long, "surveys": [survey]});
            (Script::Leave, args)
        }
        7 => {
            let args = json!({"box": name, "deploy": deploy, "phase": phase, "suffix": suffix, "token": token, "ttl": long, "out": flag});
            (Script::Renew, args)
        }
        8 => {
            let phase = dice.of(&["done", "failed", "rolled_back", "cancelled"]);
            let args = json!({
                "box": name, "deploy": deploy, "phase": phase, "in_service": flag, "running": "v1", "suffix": suffix, "token": token,
            });
            (Script::Finish, args)
        }
        9 => (Script::Hold, json!({"box": name, "deploy": deploy, "ms": if flag { long } else { 0 }})),
        10 if dice.below(4) == 0 => (Script::Cancel, json!({"by": "ann", "reason": "enough", "broken": flag})),
        10 => (Script::Unlock, json!({"box": name, "force": flag, "interval": long, "by": "ann"})),
        _ => {
            let args = json!({
                "id": deploy, "alive": NAMES, "failed": [], "left": [], "interval": long, "ttl": long, "silence": long,
                "join_timeout": long, "lock_timeout": long, "deploy_timeout": long,
            });
            (Script::End, args)
        }
    }
}

#[test]
fn the_scripts_have_the_same_answers() {
    on_redis(|real| {
        let (mut connection, engine) = (real.connection(), Engine::new(None));
        for seed in 0..12 {
            real.flush();
            let (mut memory, mut dice) = (Memory::default(), Dice(seed));
            for _ in 0..150 {
                let (script, args) = call(&mut dice);
                let compiled = redis::Script::new(&script.source());
                let text: String = compiled.key(BASE).arg(args.to_string()).invoke(&mut connection).unwrap();
                let mut answers = [serde_json::from_str(&text).unwrap(), engine.run(&mut memory, script, &args)];
                answers.iter_mut().for_each(forget_times);
                assert_eq!(answers[0], answers[1], "{script:?} {args}");
            }
            assert_eq!(real.keys("*"), memory.names());
        }
    });
}

/// The two do not begin at the same time.
fn forget_times(answer: &mut Json) {
    if let Some(fields) = answer.as_object_mut() {
        fields.retain(|name, _| !matches!(name.as_str(), "epoch" | "ago" | "at"));
        fields.values_mut().for_each(forget_times);
    }
}
