//! What happened, and who is still to be told of it.
//!
//! A turn is written down together with an entry in the outbox of each target, in one step, and once for each id: whoever
//! is killed before may do it again, and whoever is killed after has lost nothing. Its number is the time in milliseconds
//! by Redis's clock, or one more than the last: a Redis that came back empty counts on, not anew.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{ServiceStore, write};
use crate::api::Turn;

/// How many turns are kept.
const TURNS_KEPT: usize = 5000;
/// How many entries wait in one outbox; beyond them the oldest is dropped.
const MOST_WAITING: usize = 1000;
/// How long it is known that a turn was written down, in milliseconds: longer than the record of its deploy is kept.
const KNOWN_FOR: u64 = 90 * 24 * 3600 * 1000;

/// How long the outbox of a target that is told nothing any more is kept, in milliseconds: longer than an entry is tried.
const FORGOTTEN: u64 = 2 * 24 * 3600 * 1000;

/// KEYS: the turn's own mark, all turns, the counters, and the outbox of each target. ARGV: how long the mark lives, how
/// many turns are kept, how many entries an outbox holds, the turn, an entry, how long an outbox lives, and the name of each
/// target.
const RECORD: &str = r"
if not redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then return nil end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local last = redis.call('ZREVRANGE', KEYS[2], 0, 0)[1]
local number = string.format('%.0f', math.max(now, (tonumber(string.match(last or '', '^%d+')) or 0) + 1))
redis.call('ZADD', KEYS[2], number, number .. ' ' .. ARGV[4])
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - ARGV[2])
local dropped = {}
for at = 4, #KEYS do
  local name = ARGV[at + 3]
  if redis.call('HLEN', KEYS[at]) >= tonumber(ARGV[3]) then
    local oldest = nil
    for _, other in ipairs(redis.call('HKEYS', KEYS[at])) do
      if not oldest or tonumber(other) < tonumber(oldest) then oldest = other end
    end
    redis.call('HDEL', KEYS[at], oldest)
    redis.call('HINCRBY', KEYS[3], name .. ':dropped', 1)
    dropped[#dropped + 1] = name
  end
  redis.call('HSET', KEYS[at], number, ARGV[5])
  redis.call('PEXPIRE', KEYS[at], ARGV[6])
end
return number .. ' ' .. table.concat(dropped, ' ')";

/// What waits in an outbox to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsent {
    /// What it is about: entries of one are told in order.
    pub lane: String,
    /// How often it was tried.
    pub tries: u32,
    /// Not before then, in milliseconds since 1970.
    pub due: i64,
}

/// What became of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notified {
    /// It was taken.
    Sent,
    /// It was not, and is tried again.
    Failed,
    /// Nobody tries any more.
    Dropped,
}

impl Notified {
    pub const ALL: [Self; 3] = [Self::Sent, Self::Failed, Self::Dropped];

    /// The word in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

impl ServiceStore {
    /// Writes a turn down, and puts it into the outboxes of these targets; nothing if that was done before. Answers the
    /// targets whose outbox was so full that the oldest entry was dropped.
    pub fn record_turn(&self, turn: &Turn, targets: &[&str]) -> Result<Vec<String>> {
        let (mark, text) = (self.key(&format!("turn:{}", turn.id)), write(turn)?);
        let entry = write(&Unsent { lane: turn.lane().to_owned(), ..Unsent::default() })?;
        let script = redis::Script::new(RECORD);
        let mut call = script.key(mark);
        call.key(self.key("turns")).key(self.key("notified"));
        call.arg(KNOWN_FOR).arg(TURNS_KEPT).arg(MOST_WAITING).arg(text).arg(entry).arg(FORGOTTEN);
        for name in targets {
            call.key(self.outbox_key(name)).arg(*name);
        }
        let answer: Option<String> = self.with(|store| store.with(|connection| call.invoke(connection)))?;
        Ok(answer
            .iter()
            .flat_map(|answer| answer.split(' ').skip(1))
            .filter(|n| !n.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// The turns after the one with this number, oldest first, `most` at most. One that another version wrote is skipped.
    pub fn turns_after(&self, number: u64, most: usize) -> Result<Vec<(u64, Turn)>> {
        let (key, after, most) = (self.key("turns"), format!("({number}"), most.to_string());
        let texts: Vec<String> =
            self.with(|store| store.command(&["ZRANGEBYSCORE", &key, &after, "+inf", "LIMIT", "0", &most]))?;
        Ok(texts.iter().filter_map(|text| numbered(text)).collect())
    }

    /// The turn with this number, as long as it is kept.
    pub fn turn(&self, number: u64) -> Result<Option<Turn>> {
        let (key, number) = (self.key("turns"), number.to_string());
        let texts: Vec<String> = self.with(|store| store.command(&["ZRANGEBYSCORE", &key, &number, &number]))?;
        Ok(texts.first().and_then(|text| numbered(text)).map(|(_, turn)| turn))
    }

    /// The number of the newest turn; 0 before the first.
    pub fn newest_turn(&self) -> Result<u64> {
        let key = self.key("turns");
        let texts: Vec<String> = self.with(|store| store.command(&["ZREVRANGE", &key, "0", "0"]))?;
        Ok(texts.first().and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0))
    }

    /// What waits to be told to a target, by the turn's number.
    pub fn outbox(&self, target: &str) -> Result<BTreeMap<u64, Unsent>> {
        let key = self.outbox_key(target);
        let texts: BTreeMap<u64, String> = self.with(|store| store.command(&["HGETALL", &key]))?;
        // One that cannot be read is tried at once, and must not keep the others from being told.
        Ok(texts.into_iter().map(|(number, text)| (number, serde_json::from_str(&text).unwrap_or_default())).collect())
    }

    /// How many wait to be told to a target.
    pub fn count_waiting(&self, target: &str) -> Result<u64> {
        let key = self.outbox_key(target);
        self.with(|store| store.command(&["HLEN", &key]))
    }

    /// A turn is told, or dropped: nothing of it waits any more.
    pub fn take_out(&self, target: &str, number: u64, outcome: Notified) -> Result<()> {
        let (outbox, counters) = (self.outbox_key(target), self.key("notified"));
        let field = format!("{target}:{}", outcome.as_str());
        self.with(|store| {
            store.with(|c| redis::pipe().atomic().hdel(&outbox, number).hincr(&counters, &field, 1).exec(c))
        })
    }

    /// It was not taken: it waits as `entry` says.
    pub fn try_later(&self, target: &str, number: u64, entry: &Unsent) -> Result<()> {
        let (outbox, counters) = (self.outbox_key(target), self.key("notified"));
        let (field, text) = (format!("{target}:{}", Notified::Failed.as_str()), write(entry)?);
        self.with(|store| {
            store.with(|c| redis::pipe().atomic().hset(&outbox, number, &text).hincr(&counters, &field, 1).exec(c))
        })
    }

    /// How many notifications ended how, by `TARGET:OUTCOME`.
    pub fn notified(&self) -> Result<BTreeMap<String, u64>> {
        let key = self.key("notified");
        self.with(|store| store.command(&["HGETALL", &key]))
    }

    fn outbox_key(&self, target: &str) -> String {
        self.key(&format!("outbox:{target}"))
    }
}

/// A member of the set of turns: the number, and the turn.
fn numbered(text: &str) -> Option<(u64, Turn)> {
    let (number, json) = text.split_once(' ')?;
    Some((number.parse().ok()?, serde_json::from_str(json).ok()?))
}
