-- looked: what a looker saw, or that its look failed.
-- Promises: an older look never replaces a newer one; the next looker may go at once.
-- arg: key, begun, token, life, seen (absent: the look failed)

local looks, looker = base .. 'look:' .. arg.key, base .. 'looker:' .. arg.key
if redis.call('GET', looker) == arg.token then redis.call('DEL', looker) end
local stored = tonumber(redis.call('HGET', looks, '@begun') or -1)
if arg.seen and (arg.begun > stored or stored > now) then
  redis.call('DEL', looks)
  redis.call('HSET', looks, '@begun', arg.begun)
  for target, state in pairs(arg.seen) do redis.call('HSET', looks, target, state) end
  redis.call('PEXPIRE', looks, arg.life)
end
return reply({ stored = stored })
