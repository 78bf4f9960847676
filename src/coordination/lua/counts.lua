-- How many boxes use up capacity is kept, not counted: a grant costs the same however many boxes there are. Three sorted
-- sets hold boxes by the time until which each counts:
--   used    holds a lock, is out, has a place for a reboot, or failed in the deploy that rolls
--   away    is out, or has a place for a reboot
--   taking  has a lock of the deploy that rolls, and has not begun under it
-- and as many for each zone (see zones.lua), `used:ZONE`, with the boxes of that zone alone.
-- The truth is in the locks, in `out` and in the rows. Whoever changes those of a box calls `weigh(box)` afterwards. When
-- an entry's time is over the truth is asked before it goes: a box that counts too long only delays others. They are made
-- anew from the truth
--   * always, where there are no more than FEW locks;
--   * after a script of an older version has run (see `traces`), and when a deploy begins or ends;
--   * every RECOUNT ms, for locks that another program set or deleted.
-- `free` holds suffixes that were freed. Whether one is free says only its key.

local SETS = { 'used', 'away', 'taking' }
local TAKES_PLACE = { 'draining', 'starting', 'verifying', 'registering', 'done', 'lost' }
local TAKES = {}
for _, phase in ipairs(TAKES_PLACE) do TAKES[phase] = true end
-- No passing time ends it.
local FOREVER = math.huge

-- A box in `out` counts to the end of the deploy that took it out, always while a person keeps it out, and else until
-- its TTL has passed since its last renewal, so that an old failure does not prevent future deploys. One that a person
-- keeps out and that is gone takes no part: neither in the size nor here.
local function out_until(id, entry, row)
  if entry.hand then return row and row.phase == 'gone' and 0 or FOREVER end
  return entry.deploy == id and FOREVER or entry.renewed + entry.ttl - 1
end

-- Until when the lock `suffix` lives. One that never expires is asked again in KEPT.
local function lives_until(suffix)
  local left = redis.call('PTTL', base .. 'lock:' .. suffix)
  return now + (left >= 0 and left or KEPT)
end

-- Until when a box counts in each of the SETS. A box that waits under a lock, out from an earlier deploy, has not begun.
-- A place for a reboot is no verdict on the box: it counts for long, and not for ever.
local function weights(id, row, entry, lock, lives, reboot)
  local away = math.max(entry and out_until(id, entry, row) or 0, reboot and now + KEPT or 0)
  local used = row and row.phase == 'failed' and FOREVER or math.max(away, lives)
  local begins = lock and lock.deploy == id and row and UNFINISHED[row.phase] and not TAKES[row.phase]
    and (not entry or entry.begun == id)
  return { used = used, away = away, taking = begins and lives or 0 }
end

-- Writes down how `box` counts.
local function weigh(box)
  local id, zone, suffix, lock = rolling_id(), zone_of(box), own_lock(box)
  local counts = weights(id, row_of(id, box), out_entry(box), lock, suffix and lives_until(suffix) or 0, reboot_of(box))
  local function write(set, until_when)
    if until_when >= now then
      redis.call('ZADD', base .. set, until_when, box)
    else
      redis.call('ZREM', base .. set, box)
    end
  end
  for _, set in ipairs(SETS) do
    write(set, counts[set])
    if zone ~= '' then write(set .. ':' .. zone, counts[set]) end
  end
end

-- The boxes that may count, each with its lock and until when that lives.
local function boxes_of(id, locks, outs, reboots)
  local boxes = {}
  for suffix, lock in pairs(locks) do
    local found, lives = boxes[lock.box] or { lives = 0 }, lives_until(suffix)
    if lives > found.lives then boxes[lock.box] = { lock = lock, lives = lives } end
  end
  for box in pairs(outs) do boxes[box] = boxes[box] or { lives = 0 } end
  for box in pairs(reboots) do boxes[box] = boxes[box] or { lives = 0 } end
  for _, box in ipairs(redis.call('SMEMBERS', of(id, 'failed'))) do boxes[box] = boxes[box] or { lives = 0 } end
  return boxes
end

local function replace(set, members)
  redis.call('DEL', base .. set)
  local words = {}
  local function write()
    if #words > 0 then redis.call('ZADD', base .. set, unpack(words)) end
    words = {}
  end
  for member, score in pairs(members) do
    words[#words + 1] = score
    words[#words + 1] = member
    if #words >= 1000 then write() end
  end
  write()
end

-- Makes all of it anew from the truth.
local function recount(n)
  local id, locks, outs, reboots = rolling_id(), all_locks(n), all_out(), all_reboots()
  local found, zones = { used = {}, away = {}, taking = {}, free = {} }, {}
  if zone_count > 0 then zones = redis.call('SMEMBERS', base .. 'zone_names') end
  for _, zone in ipairs(zones) do
    for _, set in ipairs(SETS) do found[set .. ':' .. zone] = {} end
  end
  for box, of_box in pairs(boxes_of(id, locks, outs, reboots)) do
    local counts = weights(id, row_of(id, box), outs[box], of_box.lock, of_box.lives, reboots[box])
    local zone = zone_of(box)
    for set, lasts in pairs(counts) do
      local of_zone = found[set .. ':' .. zone]
      if lasts >= now then found[set][box] = lasts end
      if lasts >= now and of_zone then of_zone[box] = lasts end
    end
  end
  for suffix = 1, highest() do
    if not locks[suffix] then found.free[suffix] = suffix end
  end
  for set, members in pairs(found) do replace(set, members) end
  local holders = redis.call('HGETALL', base .. 'holders')
  for at = 1, #holders, 2 do
    local lock = locks[tonumber(holders[at + 1])]
    if not lock or lock.box ~= holders[at] then redis.call('HDEL', base .. 'holders', holders[at]) end
  end
  redis.call('HSET', base .. 'walk', 'next', 0)
  counted = traces()
  redis.call('SET', base .. 'counted', counted, 'PX', RECOUNT)
end

local is_settled = false

-- Makes the counts right, where there are `n` locks. Before anything is counted; once in a script is enough.
local function settle(n)
  if is_settled then return end
  is_settled = true
  if not counted or math.max(n, highest()) <= FEW then return recount(n) end
  for _, set in ipairs(SETS) do
    for _, box in ipairs(redis.call('ZRANGEBYSCORE', base .. set, '-inf', '(' .. now)) do weigh(box) end
  end
end

-- How many boxes other than `me` are in a set, once it is settled.
local function others(set, me)
  return redis.call('ZCARD', base .. set) - (redis.call('ZSCORE', base .. set, me) and 1 or 0)
end

-- One of the boxes other than `me` that use up capacity.
local function a_user(me)
  local first = redis.call('ZRANGE', base .. 'used', 0, 1)
  return first[1] ~= me and first[1] or first[2]
end

-- The names of up to three boxes other than `me` in a set, as people read them.
local function some_of(set, me)
  local names = {}
  for _, box in ipairs(redis.call('ZRANGE', base .. set, 0, 3)) do
    if box ~= me and #names < 3 then names[#names + 1] = box end
  end
  table.sort(names)
  return table.concat(names, ', ') .. (others(set, me) > 3 and ', …' or '')
end

-- The lowest suffix up to `n` that nobody holds, of those that were freed or never granted.
local function free_suffix(n)
  while true do
    local suffix = redis.call('ZRANGEBYSCORE', base .. 'free', 1, n, 'LIMIT', 0, 1)[1]
    if not suffix then break end
    if not lock_at(suffix) then return tonumber(suffix) end
    redis.call('ZREM', base .. 'free', suffix)
  end
  for suffix = highest() + 1, n do
    redis.call('HSET', base .. 'walk', 'top', suffix)
    if not lock_at(suffix) then return suffix end
  end
  return nil
end

local function end_reboot(box)
  redis.call('HDEL', base .. 'reboots', box)
  freed()
  weigh(box)
end

-- Steps -----------------------------------------------------------------------------------------------------------

-- The step that a deploy stands at and its number of places; nothing after the last one. A box that was done and died
-- since is replaced by another.
local function step_of(doc)
  local step = doc and doc.steps and doc.steps[doc.step]
  return step, step and math.min(size_of(doc.id), locks_for(size_of(doc.id), step.boxes) + (doc.step_dead or 0))
end

local function step_name(doc) return 'step ' .. doc.step .. ' of ' .. #doc.steps end

-- How many boxes other than `me` have the release, or are on the way to it: by their rows, or by a lock that they have
-- not used yet.
local function step_taken(id, me)
  local count = others('taking', me)
  for _, boxes in ipairs(redis.call('HMGET', of(id, 'tally'), unpack(TAKES_PLACE))) do
    count = count + (tonumber(boxes or 0) or 0)
  end
  local row = row_of(id, me)
  return row and TAKES[row.phase] and count - 1 or count
end
