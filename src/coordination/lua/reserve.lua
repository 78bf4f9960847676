-- reserve: a box asks, through the service, for a place for its reboot. No worker of its renews that.
-- Promises: the boxes that hold a lock, are out, have such a place, or failed in the deploy that rolls never exceed n
-- through a place given here, nor those of a zone its own n; who has one keeps it. A box that is at work gets none. It ends by `release`, by the verdict
-- of `reboots`, or by `unlock`; no time ends it, because a boot may take long.
-- arg: box, id (what the client calls itself), purpose; size, max_parallel and zone = { name, size } (where no deploy
--      rolls); settle (ms without grants in a new epoch), epoch

local doc, settled = read('current'), epoch()
if reboot_of(arg.box) then return reply({ reserved = true, again = true, epoch = settled.id }) end
local rolling = doc and doc.state == 'rolling'
local size = rolling and size_of(doc.id) or arg.size
local n = locks_for(size, rolling and doc.max_parallel or arg.max_parallel)

local wait
if now < settled.since + arg.settle then
  wait = 'Redis restarted; every box says first where it stands'
elseif own_lock(arg.box) then
  wait = arg.box .. ' is at work itself'
else
  if arg.zone then set_zone(arg.box, arg.zone.name) end
  settle(n)
  local used = others('used', arg.box)
  if used >= n then wait = used .. ' of ' .. n .. (n == 1 and ' lock: ' or ' locks: ') .. some_of('used', arg.box) end
  wait = wait or zone_wait('used', arg.box, doc, not rolling and arg or nil) or nil
end
if wait then return reply({ reserved = false, wait = wait, epoch = settled.id }) end

local entry = { id = arg.id, purpose = arg.purpose, since = now, renewed = now }
redis.call('HSET', base .. 'reboots', arg.box, cjson.encode(entry))
weigh(arg.box)
return reply({ reserved = true, again = false, epoch = settled.id })
