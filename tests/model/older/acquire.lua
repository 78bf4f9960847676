-- acquire: a box asks for a lock.
-- Promises: the boxes that hold a lock, are out, or failed in this deploy never exceed n through a grant made here. A
-- box that is out always gets a lock, with a new token, even after a cancel or an end: it must be able to restore itself.
-- The reply says what such a lock is not for: `not_yet` (gated, held or paused: wait), `cancel` and `over` (go back).
-- `stands`: the wait is somebody's will, and no deadline of the box counts meanwhile.
-- arg: box, deploy, token, ttl, settle (ms without grants in a new epoch), epoch;
--      hand = { size, max_parallel } for work without a deploy

local doc, mine = read('current'), out_entry(arg.box)
local hand = arg.hand
local going = hand and not (doc and doc.state == 'rolling') or rolls(doc, arg.deploy)
local cancel = not hand and cancel_of(arg.deploy) or nil
local settled = epoch()
-- From before it was interrupted: the new token ends the old worker's ownership.
local suffix = own_lock(arg.box)

local blaming = not hand and doc and holder(doc.id, arg.box)
local not_yet = blaming and blaming .. ' finds out whether the release is broken' or nil
-- Who left in this very deploy goes on: that restores capacity soonest.
local begins = not hand and going and not (mine and mine.begun == arg.deploy)
local paused = begins and pause_of(doc) or nil
local step, places
if begins then step, places = step_of(doc) end
not_yet = not_yet or paused
if mine and step and step_taken(arg.deploy, arg.box, (all_locks(1))) >= places then
  not_yet = not_yet or step_name(doc)
end
if doc and not hand and doc.gated then not_yet = 'the gates before the start' end

if not mine then
  if not going then
    return reply({ stop = hand and 'rolling' or 'ended', current = doc and doc.id or nil, cancel = cancel })
  end
  if cancel then return reply({ stop = 'cancelled', cancel = cancel }) end
  local wait = not_yet
  if not wait and now < settled.since + arg.settle then wait = 'Redis restarted; every box says first where it stands' end
  -- By hand, another size counts than what this was found with.
  if not wait and not suffix and not hand then wait = redis.call('GET', base .. 'full') or nil end
  -- A lock that is left from an earlier deploy is no place in this one.
  if not wait and step and suffix and lock_at(suffix).deploy ~= arg.deploy
    and step_taken(arg.deploy, arg.box, (all_locks(1))) >= places then
    wait = step_name(doc)
  end
  if wait then
    if not hand then touch_row(doc.id, arg.box, wait) end
    return reply({ wait = wait, stands = paused ~= nil or step ~= nil, epoch = settled.id })
  end
end

local size = hand and hand.size or size_of(arg.deploy)
local n = 1
if hand then n = locks_for(size, hand.max_parallel) elseif doc then n = locks_for(size, doc.max_parallel) end

if not suffix then
  local locks, top = all_locks(n)
  local used, names = used_by_others(arg.deploy, arg.box, locks, now)
  local full = step and not mine and step_taken(arg.deploy, arg.box, locks) >= places
  if mine or used < n and not full then
    local next = tonumber(redis.call('HGET', base .. 'walk', 'next') or 1)
    for step = 0, n - 1 do
      local at = (next - 1 + step) % n + 1
      if not locks[at] then suffix = at; break end
    end
    if not suffix and mine then suffix = top + 1 end
  end
  if not suffix then
    local wait = full and step_name(doc) or #names .. ' of ' .. n .. (n == 1 and ' lock: ' or ' locks: ') .. table.concat(names, ', ', 1, math.min(3, #names))
    if #names > 3 and not full then wait = wait .. ', …' end
    -- Until a lock is freed, or soon, nobody needs to walk again.
    if not hand then
      redis.call('SET', base .. 'full', wait, 'PX', math.min(2000, arg.ttl))
      touch_row(arg.deploy, arg.box, wait)
    end
    return reply({ wait = wait, stands = step ~= nil, epoch = settled.id })
  end
end

take_lock(suffix, arg.ttl)
redis.call('HSET', base .. 'walk', 'next', suffix % n + 1)
if mine then
  if begins and not not_yet then mine.begun = arg.deploy end
  mine.deploy, mine.token, mine.renewed, mine.ttl = arg.deploy, arg.token, now, arg.ttl
  redis.call('HSET', base .. 'out', arg.box, cjson.encode(mine))
end
return reply({ granted = suffix, size = size, locks = n, out = mine ~= nil, cancel = cancel, epoch = settled.id,
               not_yet = going and not_yet or nil, over = not going and not hand or nil })
