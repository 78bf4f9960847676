-- What every script shares. It is put before each of them, so all of them read the same state by the same clock.
-- KEYS[1] is the place, `PREFIX:{ENV:ROLE}:`; ARGV[1] the arguments, a JSON object. Times are milliseconds.

local base, arg = KEYS[1], cjson.decode(ARGV[1])
for name, value in pairs(arg) do if value == cjson.null then arg[name] = nil end end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- SCHEMA, KEPT (ms), MOST_LOCKS, FEW, RECOUNT (ms), UNFINISHED and WORKING (sets of phases) come from the Rust types: see scripts.rs.

local function read(key)
  local text = redis.call('GET', base .. key)
  return text and cjson.decode(text) or nil
end

local function of(id, part) return base .. 'deploy:' .. id .. ':' .. part end

-- How many zones there are (see zones.lua): where there are none, nothing is asked about them.
local zone_count = redis.call('SCARD', base .. 'zone_names')

-- Whether the counts can be trusted (see counts.lua) ------------------------------------------------------------------

-- The deploy that rolls, or ''.
local function rolling_id()
  local doc = read('current')
  return doc and doc.state == 'rolling' and doc.id or ''
end

-- What scripts of an older version leave behind when they change what is counted: they keep no counts. `next` is 0 as
-- long as none of them has taken or freed a lock. One that keeps counts, and none of zones, writes no number of zones.
local function traces()
  local id = rolling_id()
  return table.concat({ id, redis.call('HLEN', base .. 'holders'), redis.call('HLEN', base .. 'out'),
                        redis.call('SCARD', of(id, 'failed')), redis.call('HGET', of(id, 'tally'), 'waiting') or 0,
                        redis.call('HGET', base .. 'walk', 'next') or '', zone_count > 0 and zone_count or nil }, ' ')
end

-- `counted` says what the traces were after the last script that kept the counts. Where that is not what they are now, or
-- nothing, the counts must be made anew.
local counted = redis.call('GET', base .. 'counted')

local function distrust()
  counted = nil
  redis.call('DEL', base .. 'counted')
end

if counted ~= traces() then distrust() end

-- Each script ends so.
local function reply(answer)
  local left = counted and traces()
  if left ~= counted then redis.call('SET', base .. 'counted', left, 'KEEPTTL') end
  return cjson.encode(answer)
end

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

-- Zones (see zones.lua) -----------------------------------------------------------------------------------------------

-- The zone of a box, or ''.
local function zone_of(box) return zone_count > 0 and redis.call('HGET', base .. 'zones', box) or '' end

-- As what a box counts in its zone: `gone`, or a part of its size that is `expected`, `waits`, or neither.
local function part_of_zone(phase)
  if phase == 'expected' or phase == 'gone' then return phase end
  return (phase == 'waiting' or phase == 'pulling') and 'waits' or phase and 'size'
end

local function add_to_zone(id, zone, phase, by)
  local part = part_of_zone(phase)
  if not part then return end
  redis.call('HINCRBY', of(id, 'zones'), zone .. ' ' .. part, by)
  if part == 'expected' or part == 'waits' then redis.call('HINCRBY', of(id, 'zones'), zone .. ' size', by) end
end

-- The row of `box` went from one phase to another. Where no box has a zone nothing is kept.
local function note_zone(id, box, was, is)
  if zone_count == 0 or part_of_zone(was) == part_of_zone(is) or redis.call('HLEN', of(id, 'zones')) == 0 then return end
  local zone = zone_of(box)
  add_to_zone(id, zone, was, -1)
  add_to_zone(id, zone, is, 1)
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

-- A lock may be free from here on: the next that asks looks again, at this suffix first.
local function freed(suffix)
  redis.call('DEL', base .. 'full')
  if suffix then redis.call('ZADD', base .. 'free', suffix, suffix) end
end

-- When a box with an unfinished row was heard of: `working` holds those that work, `seen` the others.
local function note_seen(id, box, phase)
  local works = WORKING[phase]
  redis.call('ZREM', of(id, works and 'seen' or 'working'), box)
  if UNFINISHED[phase] then
    redis.call('ZADD', of(id, works and 'working' or 'seen'), now, box)
  else
    redis.call('ZREM', of(id, 'seen'), box)
  end
end

-- The only writer of a row: `remaining`, the failed, `seen`, the tally and the zones follow from it in the same step.
local function set_row(id, box, phase, tag, detail)
  local old = row_of(id, box)
  local was, is = old and UNFINISHED[old.phase], UNFINISHED[phase]
  local remaining = was ~= is and remaining_of(id)
  local row = { phase = phase, tag = tag or (old and old.tag), detail = detail, seen = now,
                since = old and old.phase == phase and old.since or now }
  redis.call('HSET', of(id, 'boxes'), box, cjson.encode(row))
  note_seen(id, box, phase)
  if old and old.phase == phase then return end
  if remaining then redis.call('SET', of(id, 'remaining'), remaining + (is and 1 or -1), 'KEEPTTL') end
  if old then redis.call('HINCRBY', of(id, 'tally'), old.phase, -1) end
  redis.call('HINCRBY', of(id, 'tally'), phase, 1)
  note_zone(id, box, old and old.phase, phase)
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
  note_seen(id, box, row.phase)
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

-- The suffix of the box's own lock, and the lock, without a walk.
local function own_lock(box)
  local suffix = tonumber(redis.call('HGET', base .. 'holders', box) or nil)
  if not suffix then return nil end
  local lock = lock_at(suffix)
  if lock and lock.box == box then return suffix, lock end
  redis.call('HDEL', base .. 'holders', box)
  if not lock then freed(suffix) end
  return nil
end

-- The highest suffix that was ever granted. More than any fleet has boxes are somebody's mistake; walking them would
-- block Redis.
local function highest() return math.min(MOST_LOCKS, tonumber(redis.call('HGET', base .. 'walk', 'top') or 0) or 0) end

-- Every unexpired lock, by suffix: up to the highest, so that none is overlooked when n has become smaller.
local function all_locks(n)
  local found, top = {}, math.max(math.min(n, MOST_LOCKS), highest())
  for from = 1, top, 1000 do
    local keys = {}
    for suffix = from, math.min(top, from + 999) do keys[#keys + 1] = base .. 'lock:' .. suffix end
    for at, text in ipairs(redis.call('MGET', unpack(keys))) do
      if text then found[from + at - 1] = lock_from(text) end
    end
  end
  return found
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

-- Boxes that have a place for a reboot: see reserve.lua.
local function reboot_of(box)
  local text = redis.call('HGET', base .. 'reboots', box)
  return text and entry_from(text) or nil
end

local function all_reboots()
  local flat, found = redis.call('HGETALL', base .. 'reboots'), {}
  for at = 1, #flat, 2 do found[flat[at]] = entry_from(flat[at + 1]) end
  return found
end

local function set_lock(suffix, lock, ttl)
  redis.call('SET', base .. 'lock:' .. suffix, cjson.encode(lock), 'PX', ttl)
end

-- A lock for `arg`'s box and token, as the highest suffix if it is.
local function take_lock(suffix, ttl)
  set_lock(suffix, { box = arg.box, deploy = arg.deploy, token = arg.token, since = now, renewed = now }, ttl)
  redis.call('HSET', base .. 'holders', arg.box, suffix)
  redis.call('ZREM', base .. 'free', suffix)
  if suffix > highest() then redis.call('HSET', base .. 'walk', 'top', suffix) end
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

-- A box other than `me` that finds out whether the release is broken. Page by page: the first that is found will do.
local function holder(id, me)
  local cursor = '0'
  repeat
    local page = redis.call('HSCAN', of(id, 'hold'), cursor)
    cursor = page[1]
    for at = 1, #page[2], 2 do
      if page[2][at] ~= me and now < tonumber(page[2][at + 1]) then return page[2][at] end
    end
  until cursor == '0'
  return nil
end

local function keep_for_a_while(id)
  local parts = { 'record', 'boxes', 'remaining', 'tally', 'failed', 'seen', 'working', 'members', 'cancel', 'hold', 'zones',
                  'lost' }
  for _, part in ipairs(parts) do redis.call('PEXPIRE', of(id, part), KEPT) end
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
  -- What stands in `out` from this deploy counts differently from here on.
  distrust()
end

-- The service looks at a deploy. One that was away itself gives everybody time to speak.
local function note_look(id)
  local looked = tally(id, 'looked')
  if arg.look_gap and looked > 0 and now - looked > arg.look_gap then redis.call('HSET', of(id, 'tally'), 'gap', now) end
  redis.call('HSET', of(id, 'tally'), 'looked', now)
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
