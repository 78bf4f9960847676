-- hold: a box finds out whether the release is to blame; nobody takes a lock until it knows.
-- Promises: each box has its own hold, and it ends by itself.
-- arg: box, deploy, ms (0 lifts it)

local doc = read('current')
if not rolls(doc, arg.deploy) then return reply({ refused = 'ended' }) end
if arg.ms > 0 then
  redis.call('HSET', of(arg.deploy, 'hold'), arg.box, now + arg.ms)
else
  redis.call('HDEL', of(arg.deploy, 'hold'), arg.box)
  wake(arg.deploy, ALL)
end
return reply({ held = arg.ms > 0 })
