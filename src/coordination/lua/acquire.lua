-- acquire: a box asks for a lock.
-- Promises: the boxes that hold a lock, are out, or failed in this deploy never exceed n through a grant made here. A
-- box that is out always gets a lock, with a new token, even after a cancel or an end: it must be able to restore itself.
-- Nor do those of a zone exceed its own n (see zones.lua); in a step a box of the smallest zone goes first.
-- The reply says what such a lock is not for: `not_yet` (gated, held or paused: wait), `cancel` and `over` (go back).
-- `stands`: the wait is somebody's will, and no deadline of the box counts meanwhile. `refused`: `zone` where zones bind.
-- arg: box, deploy, token, ttl, settle (ms without grants in a new epoch), epoch;
--      hand = { size, max_parallel, zone = { name, size } } for work without a deploy

local doc, mine = read('current'), out_entry(arg.box)
local hand = arg.hand
local going = hand and not (doc and doc.state == 'rolling') or rolls(doc, arg.deploy)
local cancel = not hand and cancel_of(arg.deploy) or nil
local settled = epoch()
-- From before it was interrupted: the new token ends the old worker's ownership.
local suffix, lock = own_lock(arg.box)
local size, n = hand and hand.size or size_of(arg.deploy), 1
if hand then n = locks_for(size, hand.max_parallel) elseif doc then n = locks_for(size, doc.max_parallel) end

local blaming = not hand and doc and holder(doc.id, arg.box)
local not_yet = blaming and blaming .. ' finds out whether the release is broken' or nil
-- Who left in this very deploy goes on: that restores capacity soonest.
local begins = not hand and going and not (mine and mine.begun == arg.deploy)
local paused = begins and pause_of(doc) or nil
local step, places
if begins then step, places = step_of(doc) end
not_yet = not_yet or paused
local function step_is_full()
  if not step then return false end
  settle(n)
  return step_taken(arg.deploy, arg.box) >= places
end
if mine and not not_yet and step_is_full() then not_yet = step_name(doc) end
if doc and not hand and doc.gated then not_yet = 'the gates before the start' end

if not mine then
  if not going then
    return reply({ stop = hand and 'rolling' or 'ended', current = doc and doc.id or nil, cancel = cancel })
  end
  if cancel then return reply({ stop = 'cancelled', cancel = cancel }) end
  local wait = not_yet
  if not wait and now < settled.since + arg.settle then wait = 'Redis restarted; every box says first where it stands' end
  -- By hand, another size counts than what this was found with; and who reboots counts already.
  if not wait and not suffix and not hand and not reboot_of(arg.box) then wait = redis.call('GET', base .. 'full') or nil end
  -- A lock that is left from an earlier deploy is no place in this one.
  if not wait and step and suffix and lock.deploy ~= arg.deploy and step_is_full() then wait = step_name(doc) end
  if wait then
    if not hand then touch_row(doc.id, arg.box, wait) end
    return reply({ wait = wait, stands = paused ~= nil or step ~= nil, epoch = settled.id })
  end
end

if not suffix and mine then suffix = free_suffix(math.huge) end
if hand and hand.zone then set_zone(arg.box, hand.zone.name) end
if not suffix then
  settle(n)
  local full, used = step_is_full(), others('used', arg.box)
  local zone = used < n and not full and zone_wait('used', arg.box, doc, hand) or nil
  local before = step and used < n and not full and not zone and zone_before(doc, arg.box)
  if before then full, zone = true, step_name(doc) .. ': a box of zone ' .. before .. ' goes first' end
  if used < n and not full and not zone then
    suffix = free_suffix(n)
    if not suffix then
      -- Other programs hold locks that nobody has counted yet.
      recount(n)
      used = others('used', arg.box)
      suffix = used < n and free_suffix(n) or nil
    end
  end
  if not suffix then
    local wait = zone or full and step_name(doc)
      or used .. ' of ' .. n .. (n == 1 and ' lock: ' or ' locks: ') .. some_of('used', arg.box)
    -- Until a lock is freed, or soon, nobody needs to count again; of another zone they must.
    if not hand and not zone then redis.call('SET', base .. 'full', wait, 'PX', math.min(2000, arg.ttl)) end
    if not hand then touch_row(arg.deploy, arg.box, wait) end
    return reply({ wait = wait, stands = step ~= nil, refused = zone and 'zone' or nil, epoch = settled.id })
  end
end

take_lock(suffix, arg.ttl)
if mine then
  if begins and not not_yet then mine.begun = arg.deploy end
  mine.deploy, mine.token, mine.renewed, mine.ttl = arg.deploy, arg.token, now, arg.ttl
  redis.call('HSET', base .. 'out', arg.box, cjson.encode(mine))
end
weigh(arg.box)
return reply({ granted = suffix, size = size, locks = n, out = mine ~= nil, cancel = cancel, epoch = settled.id,
               not_yet = going and not_yet or nil, over = not going and not hand or nil })
