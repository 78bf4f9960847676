-- look: how a load balancer sees its targets, shared by all boxes behind it.
-- Promises: an answer comes only of a look that began after `since`; of those who need a newer one, one at a time is told
-- to look, and none before `gap` has passed since the last look began; a looker that says nothing for `lease` is followed
-- by another.
-- arg: key, since, gap, lease, token, target (absent: all of them)

local looks, looker = base .. 'look:' .. arg.key, base .. 'looker:' .. arg.key
local begun = tonumber(redis.call('HGET', looks, '@begun') or -1)
-- A clock that was set back: what lies ahead of it says nothing.
if begun > now then begun = -1 end
if begun > arg.since then
  local seen = {}
  if arg.target then
    seen[arg.target] = redis.call('HGET', looks, arg.target) or nil
  else
    local fields = redis.call('HGETALL', looks)
    for at = 1, #fields, 2 do
      if fields[at] ~= '@begun' then seen[fields[at]] = fields[at + 1] end
    end
  end
  return reply({ seen = seen })
end
local rest = begun + arg.gap - now
if rest > 0 then return reply({ wait = rest }) end
if redis.call('SET', looker, arg.token, 'NX', 'PX', arg.lease) then return reply({ look = now }) end
return reply({ wait = arg.gap / 8 })
