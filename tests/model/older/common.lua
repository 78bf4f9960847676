-- What every script shares. It is put before each of them, so all of them read the same state by the same clock.
-- KEYS[1] is the place, `PREFIX:{ENV:ROLE}:`; ARGV[1] the arguments, a JSON object. Times are milliseconds.

local base, arg = KEYS[1], cjson.decode(ARGV[1])
for name, value in pairs(arg) do if value == cjson.null then arg[name] = nil end end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- SCHEMA, KEPT (ms), MOST_LOCKS, UNFINISHED and WORKING (sets of phases) come from the Rust types: see scripts.rs.

local function read(key)
  local text = redis.call('GET', base .. key)
  return text and cjson.decode(text) or nil
end

local function reply(answer) return cjson.encode(answer) end

local function of(id, part) return base .. 'deploy:' .. id .. ':' .. part end

-- Deploys ---------------------------------------------------------------------------------------------------------

local function save(doc)
  local text = cjson.encode(doc)
  redis.call('SET', of(doc.id, 'record'), text)
  local current = read('current')
  if not current or current.id == doc.id then redis.call('SET', base .. 'current', text) end
end

local function tally(id, field) return tonumber(redis.call('HGET', of(id, 'tally'), field) or 0) end

-- What names a sorted list of boxes.
local function digest_of(boxes) return redis.sha1hex(table.concat(boxes, ',')) end

local function size_of(id) return redis.call('HLEN', of(id, 'boxes')) - tally(id, 'gone') end

-- n = max(1, floor(size × max_parallel)), at most the size.
local function locks_for(size, max_parallel)
  local numerator, denominator = string.match(max_parallel, '^(%d+)/(%d+)$')
  local percent = string.match(max_parallel, '^(%d+)%%$')
  local n = tonumber(max_parallel)
  if numerator then n = math.floor(size * numerator / denominator) end
  if percent then n = math.floor(size * percent / 100) end
  return math.max(1, math.min(n, size))
end

-- A deploy goes on: it is the current one and has not ended.
local function rolls(doc, id) return doc and doc.id == id and doc.state == 'rolling' end

-- What nobody may begin for, as people read it: a pause.
local function pause_of(doc)
  if not doc or not doc.pause then return nil end
  return 'paused by ' .. doc.pause.by .. ': ' .. doc.pause.reason
end

-- Rows ------------------------------------------------------------------------------------------------------------

local function row_of(id, box)
  local text = redis.call('HGET', of(id, 'boxes'), box)
  return text and cjson.decode(text) or nil
end

-- Never believe a missing `remaining`: it is what the table says.
local function remaining_of(id)
  local stored = redis.call('GET', of(id, 'remaining'))
  if stored then return tonumber(stored) end
  local count = 0
  for _, text in ipairs(redis.call('HVALS', of(id, 'boxes'))) do
    if UNFINISHED[cjson.decode(text).phase] then count = count + 1 end
  end
  redis.call('SET', of(id, 'remaining'), count)
  return count
end

-- A lock may be free from here on: the next that asks walks again, from this suffix.
local function freed(suffix)
  redis.call('DEL', base .. 'full')
  if suffix then redis.call('HSET', base .. 'walk', 'next', suffix) end
end

-- The only writer of a row: `remaining`, the failed and the tally follow from it in the same step.
local function set_row(id, box, phase, tag, detail)
  local old = row_of(id, box)
  local was, is = old and UNFINISHED[old.phase], UNFINISHED[phase]
  local remaining = was ~= is and remaining_of(id)
  local row = { phase = phase, tag = tag or (old and old.tag), detail = detail, seen = now,
                since = old and old.phase == phase and old.since or now }
  redis.call('HSET', of(id, 'boxes'), box, cjson.encode(row))
  if old and old.phase == phase then return end
  if remaining then redis.call('SET', of(id, 'remaining'), remaining + (is and 1 or -1), 'KEEPTTL') end
  if old then redis.call('HINCRBY', of(id, 'tally'), old.phase, -1) end
  redis.call('HINCRBY', of(id, 'tally'), phase, 1)
  if phase == 'failed' then redis.call('SADD', of(id, 'failed'), box) end
  if old and old.phase == 'failed' then
    redis.call('SREM', of(id, 'failed'), box)
    freed()
  end
  if phase ~= 'expected' and phase ~= 'waiting' and phase ~= 'pulling' then
    redis.call('HSET', of(id, 'tally'), 'progress', now)
  end
end

-- Heard of, without news.
local function touch_row(id, box, detail)
  local row = row_of(id, box)
  if not row or not UNFINISHED[row.phase] then return end
  row.seen = now
  if detail then row.detail = detail end
  redis.call('HSET', of(id, 'boxes'), box, cjson.encode(row))
end

-- Locks and boxes that are out --------------------------------------------------------------------------------------

-- A lock counts whatever its value says: another program may have set it.
local function lock_from(text)
  local ok, lock = pcall(cjson.decode, text)
  if not ok or type(lock) ~= 'table' then lock = { box = text } end
  if type(lock.box) ~= 'string' or not string.match(lock.box, '^%w[%w_.-]*$') then lock.box = 'unknown' end
  if type(lock.renewed) ~= 'number' then lock.renewed = 0 end
  return lock
end

local function lock_at(suffix)
  local text = redis.call('GET', base .. 'lock:' .. suffix)
  return text and lock_from(text) or nil
end

-- The suffix of the box's own lock, without a walk.
local function own_lock(box)
  local suffix = tonumber(redis.call('HGET', base .. 'holders', box) or nil)
  local lock = suffix and lock_at(suffix)
  return lock and lock.box == box and suffix or nil
end

-- Every unexpired lock of any suffix, by suffix. `top` is the highest suffix ever granted, so none is overlooked when
-- n has become smaller.
local function all_locks(n)
  -- More suffixes than any fleet has boxes are somebody's mistake; walking them would block Redis.
  local top = math.min(MOST_LOCKS, math.max(n, tonumber(redis.call('HGET', base .. 'walk', 'top') or 0) or 0))
  local found = {}
  for from = 1, top, 1000 do
    local keys = {}
    for suffix = from, math.min(top, from + 999) do keys[#keys + 1] = base .. 'lock:' .. suffix end
    for at, text in ipairs(redis.call('MGET', unpack(keys))) do
      if text then found[from + at - 1] = lock_from(text) end
    end
  end
  return found, top
end

-- An entry that cannot be read is of no deploy, and was never renewed: it stops nothing.
local function entry_from(text)
  local ok, entry = pcall(cjson.decode, text)
  if not ok or type(entry) ~= 'table' then entry = {} end
  if type(entry.deploy) ~= 'string' then entry.deploy = 'unknown' end
  for _, field in ipairs({ 'since', 'renewed', 'ttl' }) do
    if type(entry[field]) ~= 'number' then entry[field] = 0 end
  end
  if type(entry.targets) ~= 'table' then entry.targets = {} end
  return entry
end

local function out_entry(box)
  local text = redis.call('HGET', base .. 'out', box)
  return text and entry_from(text) or nil
end

local function all_out()
  local flat, found = redis.call('HGETALL', base .. 'out'), {}
  for at = 1, #flat, 2 do found[flat[at]] = entry_from(flat[at + 1]) end
  return found
end

-- A box in `out` counts to the end of the deploy that took it out, always while a person keeps it out, and else until
-- its TTL has passed since its last renewal, so that an old failure does not prevent future deploys. One that a person
-- keeps out and that is gone takes no part: neither in the size nor here.
local function out_counts(box, entry, deploy, at)
  if entry.hand then
    local row = row_of(deploy, box)
    return not (row and row.phase == 'gone')
  end
  return entry.deploy == deploy or at < entry.renewed + entry.ttl
end

-- The distinct boxes, other than `me`, that hold one of `locks`, are out (as of the time `at`), or failed in this deploy.
local function used_by_others(deploy, me, locks, at)
  local boxes, count, names = {}, 0, {}
  for _, lock in pairs(locks) do boxes[lock.box] = true end
  for box, entry in pairs(all_out()) do if out_counts(box, entry, deploy, at) then boxes[box] = true end end
  for _, box in ipairs(redis.call('SMEMBERS', of(deploy, 'failed'))) do boxes[box] = true end
  boxes[me] = nil
  for box in pairs(boxes) do count = count + 1; names[#names + 1] = box end
  table.sort(names)
  return count, names
end

local function set_lock(suffix, lock, ttl)
  redis.call('SET', base .. 'lock:' .. suffix, cjson.encode(lock), 'PX', ttl)
end

-- A lock for `arg`'s box and token, as the highest suffix if it is.
local function take_lock(suffix, ttl)
  set_lock(suffix, { box = arg.box, deploy = arg.deploy, token = arg.token, since = now, renewed = now }, ttl)
  redis.call('HSET', base .. 'holders', arg.box, suffix)
  local top = tonumber(redis.call('HGET', base .. 'walk', 'top') or 0)
  if suffix > top then redis.call('HSET', base .. 'walk', 'top', suffix) end
end

-- A token that has ended stays ended, however late a renewal with it arrives. The last few of each box are remembered.
local function end_token(box, token)
  local ended = redis.call('HGET', base .. 'ended', box) or ''
  if string.find(ended, token, 1, true) then return end
  redis.call('HSET', base .. 'ended', box, string.sub(token .. ',' .. ended, 1, 132))
end

local function token_has_ended(box, token)
  local ended = token ~= '' and redis.call('HGET', base .. 'ended', box)
  return ended and string.find(ended, token, 1, true) ~= nil
end

local function delete_lock(suffix, box)
  redis.call('DEL', base .. 'lock:' .. suffix)
  redis.call('HDEL', base .. 'holders', box)
  freed(suffix)
end

-- Steps -----------------------------------------------------------------------------------------------------------

local TAKES_PLACE = { 'draining', 'starting', 'verifying', 'registering', 'done', 'lost' }

-- The step that a deploy stands at and its number of places; nothing after the last one. A box that was done and died
-- since is replaced by another.
local function step_of(doc)
  local step = doc and doc.steps and doc.steps[doc.step]
  return step, step and math.min(size_of(doc.id), locks_for(size_of(doc.id), step.boxes) + (doc.step_dead or 0))
end

local function step_name(doc) return 'step ' .. doc.step .. ' of ' .. #doc.steps end

-- How many boxes other than `me` have the release, or are on the way to it: by their rows, or by a lock that they have
-- not used yet. A box that waits under a lock, out from an earlier deploy, has not begun.
local function step_taken(id, me, locks)
  local count, takes = 0, {}
  for at, boxes in ipairs(redis.call('HMGET', of(id, 'tally'), unpack(TAKES_PLACE))) do
    takes[TAKES_PLACE[at]] = true
    count = count + (tonumber(boxes or 0) or 0)
  end
  local row = row_of(id, me)
  if row and takes[row.phase] then count = count - 1 end
  for _, lock in pairs(locks) do
    local other = lock.box ~= me and lock.deploy == id and row_of(id, lock.box)
    local out = other and out_entry(lock.box)
    if other and UNFINISHED[other.phase] and not takes[other.phase] and (not out or out.begun == id) then
      count = count + 1
    end
  end
  return count
end

-- Waking ------------------------------------------------------------------------------------------------------------

local ALL = math.huge

-- Pushes up to `most` wake-ups; the list is never longer than there are waiters.
local function wake(id, most)
  local missing = tally(id, 'waiting') + tally(id, 'pulling') - redis.call('LLEN', base .. 'wake')
  if missing < 0 then redis.call('LPOP', base .. 'wake', -missing) end
  for _ = 1, math.min(most, missing) do redis.call('RPUSH', base .. 'wake', '1') end
end

-- Cancel, hold, end -------------------------------------------------------------------------------------------------

local function cancel_of(id)
  local text = redis.call('GET', of(id, 'cancel'))
  return text and cjson.decode(text) or nil
end

-- Set once; but that the release is broken outweighs any other reason: boxes go back rather than on.
local function set_cancel(id, cancel)
  local old = cancel_of(id)
  if old and (old.broken or not cancel.broken) then return old end
  cancel.at = now
  redis.call('SET', of(id, 'cancel'), cjson.encode(cancel))
  wake(id, ALL)
  return cancel
end

local function holder(id, me)
  local flat = redis.call('HGETALL', of(id, 'hold'))
  for at = 1, #flat, 2 do
    if flat[at] ~= me and now < tonumber(flat[at + 1]) then return flat[at] end
  end
  return nil
end

local function keep_for_a_while(id)
  for _, part in ipairs({ 'record', 'boxes', 'remaining', 'tally', 'failed', 'members', 'cancel', 'hold' }) do
    redis.call('PEXPIRE', of(id, part), KEPT)
  end
end

local function end_deploy(doc, state, reason)
  wake(doc.id, ALL)
  for _, box in ipairs(redis.call('HKEYS', of(doc.id, 'boxes'))) do
    if UNFINISHED[row_of(doc.id, box).phase] then set_row(doc.id, box, 'cancelled', nil, reason) end
  end
  doc.state, doc.reason, doc.ended = state, reason or doc.reason, now
  if state == 'deployed' then
    doc.last_good = doc.tag
    redis.call('SET', base .. 'complete', cjson.encode(doc))
  end
  save(doc)
  keep_for_a_while(doc.id)
end

-- Takes a deploy that never began out of the queue.
local function end_queued(doc, reason)
  doc.state, doc.reason, doc.ended = 'cancelled', reason, now
  redis.call('SET', of(doc.id, 'record'), cjson.encode(doc), 'PX', KEPT)
  redis.call('DEL', base .. 'queued')
end

-- Epoch -------------------------------------------------------------------------------------------------------------

-- A Redis that restarted, or came back empty or older, begins a new epoch. `since` is when it began, or 0 where nobody
-- remembers another one and so nothing can be missing.
local function epoch()
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
  local seen = read('epoch')
  local other = arg.epoch and (not seen or arg.epoch ~= seen.id)
  if not seen or seen.run ~= run then
    seen = { id = string.format('%.0f-%s', now, string.sub(run, 1, 8)), run = run, since = (seen or other) and now or 0 }
    redis.call('SET', base .. 'epoch', cjson.encode(seen))
  elseif other and seen.since == 0 then
    seen.since = now
    redis.call('SET', base .. 'epoch', cjson.encode(seen))
  end
  return seen
end
