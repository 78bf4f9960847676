-- What every script shares. It is put before each of them, so all of them read the same state by the same clock.
-- KEYS[1] is the place, `PREFIX:{ENV:ROLE}:`; ARGV[1] the arguments, a JSON object. Times are milliseconds.

local base, arg = KEYS[1], cjson.decode(ARGV[1])
for name, value in pairs(arg) do if value == cjson.null then arg[name] = nil end end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local SCHEMA = 1
local KEPT = 30 * 24 * 3600 * 1000
local UNFINISHED = { expected = true, waiting = true, pulling = true,
                     draining = true, starting = true, verifying = true, registering = true }
local WORKING = { draining = true, starting = true, verifying = true, registering = true }

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

-- The only writer of a row: `remaining`, the failed and the tally follow from it in the same step.
local function set_row(id, box, phase, tag, detail)
  local before = remaining_of(id)
  local old = row_of(id, box)
  local row = { phase = phase, tag = tag or (old and old.tag), detail = detail, seen = now,
                since = old and old.phase == phase and old.since or now }
  redis.call('HSET', of(id, 'boxes'), box, cjson.encode(row))
  if old and old.phase == phase then return end
  local was, is = old and UNFINISHED[old.phase], UNFINISHED[phase]
  if is and not was then redis.call('SET', of(id, 'remaining'), before + 1) end
  if was and not is then redis.call('SET', of(id, 'remaining'), before - 1) end
  if old then redis.call('HINCRBY', of(id, 'tally'), old.phase, -1) end
  redis.call('HINCRBY', of(id, 'tally'), phase, 1)
  redis.call(phase == 'failed' and 'SADD' or 'SREM', of(id, 'failed'), box)
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

-- Every unexpired lock of any suffix, by suffix. `top` is the highest suffix ever granted, so none is overlooked when
-- n has become smaller.
local function all_locks(n)
  local top = math.max(n, tonumber(redis.call('HGET', base .. 'walk', 'top') or 0))
  local found = {}
  for from = 1, top, 1000 do
    local keys = {}
    for suffix = from, math.min(top, from + 999) do keys[#keys + 1] = base .. 'lock:' .. suffix end
    for at, text in ipairs(redis.call('MGET', unpack(keys))) do
      if text then found[from + at - 1] = cjson.decode(text) end
    end
  end
  return found, top
end

local function out_entry(box)
  local text = redis.call('HGET', base .. 'out', box)
  return text and cjson.decode(text) or nil
end

local function all_out()
  local flat, found = redis.call('HGETALL', base .. 'out'), {}
  for at = 1, #flat, 2 do found[flat[at]] = cjson.decode(flat[at + 1]) end
  return found
end

-- A box in `out` counts to the end of the deploy that took it out, always while a person keeps it out, and else until
-- its TTL has passed since its last renewal, so that an old failure does not prevent future deploys.
local function out_counts(entry, deploy)
  return entry.deploy == deploy or entry.hand or now < entry.renewed + entry.ttl
end

-- The distinct boxes, other than `me`, that hold a lock, are out, or failed in this deploy.
local function used_by_others(deploy, me, locks)
  local boxes, count, names = {}, 0, {}
  for _, lock in pairs(locks) do boxes[lock.box] = true end
  for box, entry in pairs(all_out()) do if out_counts(entry, deploy) then boxes[box] = true end end
  for _, box in ipairs(redis.call('SMEMBERS', of(deploy, 'failed'))) do boxes[box] = true end
  boxes[me] = nil
  for box in pairs(boxes) do count = count + 1; names[#names + 1] = box end
  table.sort(names)
  return count, names
end

local function set_lock(suffix, lock, ttl, ...)
  return redis.call('SET', base .. 'lock:' .. suffix, cjson.encode(lock), 'PX', ttl, ...)
end

-- A lock may be free from here on: the next that asks walks again, from this suffix.
local function freed(suffix)
  redis.call('DEL', base .. 'full')
  if suffix then redis.call('HSET', base .. 'walk', 'next', suffix) end
end

local function delete_lock(suffix)
  redis.call('DEL', base .. 'lock:' .. suffix)
  freed(suffix)
end

-- Waking ------------------------------------------------------------------------------------------------------------

-- Pushes one wake-up, or one for each waiter; the list is never longer than there are waiters.
local function wake(id, all)
  local missing = tally(id, 'waiting') - redis.call('LLEN', base .. 'wake')
  for _ = 1, all and missing or math.min(1, missing) do redis.call('RPUSH', base .. 'wake', '1') end
end

-- Cancel, hold, end -------------------------------------------------------------------------------------------------

local function cancel_of(id)
  local text = redis.call('GET', of(id, 'cancel'))
  return text and cjson.decode(text) or nil
end

-- A release that is broken outweighs a person's wish, which outweighs a time-out: boxes go back rather than on.
local function set_cancel(id, cancel)
  local old = cancel_of(id)
  if old and (old.broken or not cancel.broken) then return old end
  cancel.at = now
  redis.call('SET', of(id, 'cancel'), cjson.encode(cancel))
  wake(id, true)
  return cancel
end

local function holder(id, me)
  local flat = redis.call('HGETALL', of(id, 'hold'))
  for at = 1, #flat, 2 do
    if flat[at] ~= me and now < tonumber(flat[at + 1]) then return flat[at] end
  end
  return nil
end

local function end_deploy(doc, state, reason)
  wake(doc.id, true)
  for _, box in ipairs(redis.call('HKEYS', of(doc.id, 'boxes'))) do
    if UNFINISHED[row_of(doc.id, box).phase] then set_row(doc.id, box, 'cancelled', nil, reason) end
  end
  doc.state, doc.reason, doc.ended = state, reason or doc.reason, now
  if state == 'deployed' then
    doc.last_good = doc.tag
    redis.call('SET', base .. 'complete', cjson.encode(doc))
  end
  save(doc)
  for _, part in ipairs({ 'record', 'boxes', 'remaining', 'tally', 'failed', 'cancel', 'hold' }) do
    redis.call('PEXPIRE', of(doc.id, part), KEPT)
  end
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
