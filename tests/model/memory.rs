//! A Redis in memory: the commands that the scripts use, on a clock that the model moves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// When the model begins, in milliseconds: any time will do that is no small number.
pub const BEGIN: i64 = 1_000_000_000_000;

#[derive(Debug, Clone, PartialEq)]
enum Data {
    Text(String),
    Hash(BTreeMap<String, String>),
    Set(BTreeSet<String>),
    List(VecDeque<String>),
    Sorted(BTreeMap<String, f64>),
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    data: Data,
    expires: Option<i64>,
}

/// All keys, and the clock.
#[derive(Debug, Clone)]
pub struct Memory {
    keys: BTreeMap<String, Entry>,
    pub now: i64,
    /// Changes with everything that is written, and with what expires.
    pub version: u64,
    /// No key expires before.
    next_expiry: i64,
    /// Changes when the server restarts.
    pub run: u32,
}

/// What a command answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Nothing,
    Fine,
    Number(i64),
    Text(String),
    List(Vec<Reply>),
}

impl Default for Memory {
    fn default() -> Self {
        Self { keys: BTreeMap::new(), now: BEGIN, version: 0, next_expiry: i64::MAX, run: 1 }
    }
}

/// The data of `key` as the given kind, made when it is missing.
macro_rules! data {
    ($memory:expr, $key:expr, $kind:ident) => {{
        let entry = $memory
            .keys
            .entry($key.clone())
            .or_insert_with(|| Entry { data: Data::$kind(Default::default()), expires: None });
        match &mut entry.data {
            Data::$kind(data) => data,
            other => panic!("{} holds {other:?}", $key),
        }
    }};
}

fn text(found: Option<&String>) -> Reply {
    found.map_or(Reply::Nothing, |text| Reply::Text(text.clone()))
}

fn texts<'a>(found: impl IntoIterator<Item = &'a String>) -> Reply {
    Reply::List(found.into_iter().map(|text| Reply::Text(text.clone())).collect())
}

fn count(number: usize) -> Reply {
    Reply::Number(i64::try_from(number).unwrap())
}

/// The places that `START END` mean in a list of `len`, as Redis counts: -1 is the last.
fn within(len: usize, words: &[String]) -> std::ops::Range<usize> {
    let length = i64::try_from(len).unwrap();
    let place = |word: &String| {
        let place = word.parse::<i64>().unwrap();
        if place < 0 { length + place } else { place }
    };
    let (start, end) = (place(&words[0]).max(0), (place(&words[1]) + 1).clamp(0, length));
    let start = usize::try_from(start.min(end)).unwrap();
    start..usize::try_from(end).unwrap()
}

/// Whether a command changes anything.
pub fn writes(command: &str) -> bool {
    let hashes = ["HGET", "HMGET", "HGETALL", "HKEYS", "HVALS", "HSCAN", "HLEN", "HEXISTS"];
    let sorted = ["ZCARD", "ZSCORE", "ZCOUNT", "ZRANGE", "ZREVRANGE", "ZRANGEBYSCORE"];
    let others = ["TIME", "INFO", "PING", "GET", "MGET", "PTTL", "LLEN", "LRANGE", "SCARD", "SISMEMBER", "SMEMBERS"];
    !hashes.contains(&command) && !sorted.contains(&command) && !others.contains(&command)
}

impl Memory {
    /// Time passes.
    pub fn advance(&mut self, milliseconds: i64) {
        self.now += milliseconds;
        let now = self.now;
        if now < self.next_expiry {
            return;
        }
        self.keys.retain(|_, entry| entry.expires.is_none_or(|at| at > now));
        self.next_expiry = self.keys.values().filter_map(|entry| entry.expires).min().unwrap_or(i64::MAX);
        self.version += 1;
    }

    /// `FLUSHALL`.
    pub fn flush(&mut self) {
        self.keys.clear();
        self.version += 1;
    }

    pub fn get(&self, key: &str) -> Option<&String> {
        match &self.keys.get(key)?.data {
            Data::Text(text) => Some(text),
            other => panic!("{key} holds {other:?}"),
        }
    }

    pub fn hash(&self, key: &str) -> impl Iterator<Item = (&String, &String)> {
        let found = match self.keys.get(key).map(|entry| &entry.data) {
            Some(Data::Hash(hash)) => Some(hash),
            None => None,
            Some(other) => panic!("{key} holds {other:?}"),
        };
        found.into_iter().flatten()
    }

    pub fn field(&self, key: &str, field: &str) -> Option<&String> {
        match self.keys.get(key).map(|entry| &entry.data) {
            Some(Data::Hash(hash)) => hash.get(field),
            None => None,
            Some(other) => panic!("{key} holds {other:?}"),
        }
    }

    fn list(&self, key: &str) -> Vec<&String> {
        match self.keys.get(key).map(|entry| &entry.data) {
            Some(Data::List(list)) => list.iter().collect(),
            None => vec![],
            Some(other) => panic!("{key} holds {other:?}"),
        }
    }

    pub fn members(&self, key: &str) -> Vec<String> {
        match self.keys.get(key).map(|entry| &entry.data) {
            Some(Data::Set(set)) => set.iter().cloned().collect(),
            None => vec![],
            Some(other) => panic!("{key} holds {other:?}"),
        }
    }

    /// The members of a sorted set, each after its score, in their order.
    pub fn sorted(&self, key: &str) -> Vec<(f64, String)> {
        let mut found: Vec<(f64, String)> = match self.keys.get(key).map(|entry| &entry.data) {
            Some(Data::Sorted(sorted)) => sorted.iter().map(|(member, score)| (*score, member.clone())).collect(),
            None => vec![],
            Some(other) => panic!("{key} holds {other:?}"),
        };
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        found
    }

    /// The members of a sorted set in their order.
    fn ranked(&self, key: &str) -> Vec<String> {
        self.sorted(key).into_iter().map(|(_, member)| member).collect()
    }

    /// Whether `key` expires; nothing when it is not there.
    pub fn expires(&self, key: &str) -> Option<bool> {
        self.keys.get(key).map(|entry| entry.expires.is_some())
    }

    /// The members whose scores lie from `low` to `high`, or below it where that begins with a parenthesis.
    fn between(&self, key: &str, low: &str, high: &str) -> Vec<String> {
        let low: f64 = low.parse().unwrap();
        let below = |score: f64| match high.strip_prefix('(') {
            Some(limit) => score < limit.parse().unwrap(),
            None => score <= high.parse().unwrap(),
        };
        let found = self.sorted(key).into_iter().filter(|(score, _)| *score >= low && below(*score));
        found.map(|(_, member)| member).collect()
    }

    /// How long `key` still lives, in milliseconds.
    #[allow(clippy::cast_precision_loss, reason = "milliseconds")]
    pub fn lives(&self, key: &str) -> f64 {
        self.keys.get(key).and_then(|entry| entry.expires).map_or(f64::INFINITY, |at| (at - self.now) as f64)
    }

    /// The names of all keys.
    pub fn names(&self) -> Vec<String> {
        self.keys.keys().cloned().collect()
    }

    /// Runs one command.
    pub fn call(&mut self, words: &[String]) -> Reply {
        let answer = self.answer(words);
        self.version += u64::from(writes(&words[0]));
        // Redis keeps no empty collections.
        if let Some(key) = words.get(1) {
            let empty = self.keys.get(key).is_some_and(|entry| match &entry.data {
                Data::Text(_) => false,
                Data::Hash(hash) => hash.is_empty(),
                Data::Set(set) => set.is_empty(),
                Data::List(list) => list.is_empty(),
                Data::Sorted(sorted) => sorted.is_empty(),
            });
            if empty {
                self.keys.remove(key);
            }
        }
        answer
    }

    // One arm for each command.
    #[allow(clippy::too_many_lines)]
    fn answer(&mut self, words: &[String]) -> Reply {
        let empty = String::new();
        let key = words.get(1).unwrap_or(&empty);
        let rest = words.get(2..).unwrap_or_default();
        match words[0].as_str() {
            "TIME" => Reply::List(vec![
                Reply::Text((self.now / 1000).to_string()),
                Reply::Text((self.now % 1000 * 1000).to_string()),
            ]),
            "INFO" => Reply::Text(format!("# Server\r\nrun_id:{:040x}\r\n", self.run)),
            "GET" => text(self.get(key)),
            "PTTL" => Reply::Number(match self.keys.get(key).map(|entry| entry.expires) {
                None => -2,
                Some(None) => -1,
                Some(Some(at)) => at - self.now,
            }),
            "MGET" => Reply::List(words[1..].iter().map(|key| text(self.get(key))).collect()),
            "SET" => self.set(key, rest),
            "DEL" => count(words[1..].iter().filter(|key| self.keys.remove(*key).is_some()).count()),
            "PEXPIRE" => {
                let at = self.now + rest[0].parse::<i64>().unwrap();
                self.next_expiry = self.next_expiry.min(at);
                let found = self.keys.get_mut(key).map(|entry| entry.expires = Some(at));
                count(usize::from(found.is_some()))
            }
            "PERSIST" => {
                let had = self.keys.get_mut(key).is_some_and(|entry| entry.expires.take().is_some());
                count(usize::from(had))
            }
            "HGET" => text(self.field(key, &rest[0])),
            "HMGET" => Reply::List(rest.iter().map(|field| text(self.field(key, field))).collect()),
            "HGETALL" => texts(self.hash(key).flat_map(|(field, text)| [field, text])),
            "HKEYS" => texts(self.hash(key).map(|(field, _)| field)),
            "HVALS" => texts(self.hash(key).map(|(_, text)| text)),
            // All of it is one page.
            "HSCAN" => {
                let page = texts(self.hash(key).flat_map(|(field, text)| [field, text]));
                Reply::List(vec![Reply::Text("0".to_owned()), page])
            }
            "HLEN" => count(self.hash(key).count()),
            "HSET" => {
                let hash = data!(self, key, Hash);
                let new = rest.chunks(2).filter(|pair| hash.insert(pair[0].clone(), pair[1].clone()).is_none());
                count(new.count())
            }
            "HDEL" => {
                let hash = data!(self, key, Hash);
                count(rest.iter().filter(|field| hash.remove(*field).is_some()).count())
            }
            "HEXISTS" => count(usize::from(self.field(key, &rest[0]).is_some())),
            "HSETNX" => {
                let hash = data!(self, key, Hash);
                let new = !hash.contains_key(&rest[0]);
                hash.entry(rest[0].clone()).or_insert_with(|| rest[1].clone());
                count(usize::from(new))
            }
            "HINCRBY" => {
                let field = data!(self, key, Hash).entry(rest[0].clone()).or_insert_with(|| "0".to_owned());
                let sum = field.parse::<i64>().unwrap() + rest[1].parse::<i64>().unwrap();
                *field = sum.to_string();
                Reply::Number(sum)
            }
            "SADD" => {
                let set = data!(self, key, Set);
                count(rest.iter().filter(|member| set.insert((*member).clone())).count())
            }
            "SREM" => {
                let set = data!(self, key, Set);
                count(rest.iter().filter(|member| set.remove(*member)).count())
            }
            "SISMEMBER" => count(usize::from(self.members(key).contains(&rest[0]))),
            "SCARD" => count(self.members(key).len()),
            "SMEMBERS" => texts(&self.members(key)),
            "LLEN" => count(data!(self, key, List).len()),
            "RPUSH" => {
                let list = data!(self, key, List);
                list.extend(rest.iter().cloned());
                count(list.len())
            }
            "LPOP" => {
                let list = data!(self, key, List);
                if list.is_empty() {
                    return Reply::Nothing;
                }
                let taken = list.len().min(rest[0].parse().unwrap());
                texts(&list.drain(..taken).collect::<Vec<_>>())
            }
            "LPUSH" => {
                let list = data!(self, key, List);
                for item in rest {
                    list.push_front(item.clone());
                }
                count(list.len())
            }
            "LRANGE" => {
                let list = self.list(key);
                texts(list[within(list.len(), rest)].iter().copied())
            }
            "LTRIM" => {
                let kept = within(self.list(key).len(), rest);
                let list = data!(self, key, List);
                list.truncate(kept.end);
                list.drain(..kept.start.min(list.len()));
                Reply::Fine
            }
            "ZADD" => {
                let only_new = rest[0] == "NX";
                let pairs = if only_new { &rest[1..] } else { rest };
                let (sorted, mut new) = (data!(self, key, Sorted), 0);
                for pair in pairs.chunks(2) {
                    let is_new = !sorted.contains_key(&pair[1]);
                    new += usize::from(is_new);
                    if is_new || !only_new {
                        sorted.insert(pair[1].clone(), pair[0].parse().unwrap());
                    }
                }
                count(new)
            }
            "ZREM" => count(usize::from(data!(self, key, Sorted).remove(&rest[0]).is_some())),
            "ZCARD" => count(self.sorted(key).len()),
            "ZSCORE" => {
                let found = self.sorted(key).into_iter().find(|(_, member)| *member == rest[0]);
                found.map_or(Reply::Nothing, |(score, _)| Reply::Text(score.to_string()))
            }
            "ZRANGE" if rest[0] == "-1" => {
                let last = self.sorted(key).pop().map(|(score, member)| [member, score.to_string()]);
                texts(last.iter().flatten())
            }
            "ZRANGE" => {
                let (from, to): (usize, usize) = (rest[0].parse().unwrap(), rest[1].parse().unwrap());
                let found = self.ranked(key);
                texts(found.iter().take(to + 1).skip(from))
            }
            "ZCOUNT" => count(self.between(key, &rest[0], &rest[1]).len()),
            "ZRANGEBYSCORE" => {
                let most = rest.get(4).map_or(usize::MAX, |most| most.parse().unwrap());
                texts(self.between(key, &rest[0], &rest[1]).iter().take(most))
            }
            "ZREVRANGE" => {
                let mut sorted = self.ranked(key);
                sorted.reverse();
                texts(&sorted[within(sorted.len(), rest)])
            }
            "ZREMRANGEBYRANK" => {
                let sorted = self.ranked(key);
                let gone = &sorted[within(sorted.len(), rest)];
                let data = data!(self, key, Sorted);
                data.retain(|name, _| !gone.contains(name));
                count(gone.len())
            }
            "PING" => Reply::Text("PONG".to_owned()),
            "ZREMRANGEBYSCORE" => {
                let (low, high): (f64, f64) = (rest[0].parse().unwrap(), rest[1].parse().unwrap());
                let sorted = data!(self, key, Sorted);
                let before = sorted.len();
                sorted.retain(|_, score| !(low..=high).contains(score));
                count(before - sorted.len())
            }
            other => panic!("the scripts use {other}, which this Redis does not know yet"),
        }
    }

    fn set(&mut self, key: &str, rest: &[String]) -> Reply {
        let (mut expires, mut options) = (None, rest[1..].iter());
        while let Some(option) = options.next() {
            match option.as_str() {
                "PX" => expires = Some(self.now + options.next().unwrap().parse::<i64>().unwrap()),
                "KEEPTTL" => expires = self.keys.get(key).and_then(|entry| entry.expires),
                "NX" if self.keys.contains_key(key) => return Reply::Nothing,
                "NX" => {}
                other => panic!("SET … {other}, which this Redis does not know yet"),
            }
        }
        self.next_expiry = self.next_expiry.min(expires.unwrap_or(i64::MAX));
        self.keys.insert(key.to_owned(), Entry { data: Data::Text(rest[0].clone()), expires });
        Reply::Fine
    }
}
