-- renew: a worker is alive; it says where it stands and hears whether the deploy is cancelled.
-- Promises: extends only what is the worker's own (by token); a lock that went missing comes back if its suffix is free,
-- and the capacity too unless the box is out; an `out` entry that went missing comes back always, because the box is out
-- whatever Redis remembers. A token that has ended (see `finish`) brings nothing back.
-- arg: box, deploy, phase, detail, epoch; ttl, out (the box is out), hand (why a person keeps it out), purpose (what it is
--      out for, where that is no deploy); with a lock: suffix, token

local doc = read('current')
local seen = epoch()
local lost
local finished = token_has_ended(arg.box, arg.token or '')

if arg.suffix and not finished then
  local lock = lock_at(arg.suffix)
  if lock and lock.token == arg.token then
    lock.renewed = now
    set_lock(arg.suffix, lock, arg.ttl)
  elseif lock then
    lost = lock.box
  else
    local n = rolls(doc, arg.deploy) and locks_for(size_of(arg.deploy), doc.max_parallel) or 1
    settle(n)
    local free = others('used', arg.box) < n and not (rolls(doc, arg.deploy) and zone_wait('used', arg.box, doc))
    if arg.out or free then take_lock(arg.suffix, arg.ttl) else lost = a_user(arg.box) end
  end
end
local mine = out_entry(arg.box)
if arg.out and not mine and not finished then
  mine = { deploy = arg.deploy, token = arg.token or '', since = now, targets = {}, begun = arg.deploy, hand = arg.hand,
           purpose = arg.purpose }
end
if mine and mine.token == (arg.token or '') and not finished then
  mine.renewed, mine.ttl = now, arg.ttl
  redis.call('HSET', base .. 'out', arg.box, cjson.encode(mine))
end

local row = row_of(arg.deploy, arg.box)
if row and UNFINISHED[row.phase] then
  -- Without a newer one, what it is at stays told as long as the phase is the same.
  local detail = arg.detail or (row.phase == arg.phase and row.detail or nil)
  if arg.phase then set_row(arg.deploy, arg.box, arg.phase, nil, detail) else touch_row(arg.deploy, arg.box) end
elseif row and (row.phase == 'lost' or row.phase == 'gone') and arg.phase and rolls(doc, arg.deploy) then
  set_row(arg.deploy, arg.box, arg.phase, nil, arg.detail)
end
weigh(arg.box)
return reply({ cancel = cancel_of(arg.deploy), ended = not rolls(doc, arg.deploy), lost_to = lost, epoch = seen.id })
