-- leave: the box is about to leave the load balancers.
-- Promises: from a yes on, the box stands in `out`; a yes is given only to the lock's owner, in a deploy that goes on,
-- while fewer than n others are out, and of its zone fewer than its n (see zones.lua), and while the others that get requests, less those announced in `out`, are at least
-- size - n in every load balancer that can count. A box that gets no requests skips that last check.
-- arg: box, deploy, suffix, token, ttl, hand = { size, max_parallel, reason, purpose, zone },
--      surveys = [{ key, me, in_service = […] }]

local doc, hand = read('current'), arg.hand
local lock = lock_at(arg.suffix)
if not lock or lock.token ~= arg.token then return reply({ refused = 'not_owner' }) end
local mine = out_entry(arg.box)
if not mine and not hand then
  local cancel = cancel_of(arg.deploy)
  if cancel then return reply({ refused = 'cancelled', cancel = cancel }) end
  if not rolls(doc, arg.deploy) then return reply({ refused = 'ended' }) end
  if holder(arg.deploy, arg.box) or pause_of(doc) then return reply({ refused = 'held' }) end
end

local size = hand and hand.size or size_of(arg.deploy)
local n = locks_for(size, hand and hand.max_parallel or doc and doc.max_parallel or '1')
local targets, outs = {}, nil
if not mine then
  -- The fleet may have become smaller since the grant.
  settle(n)
  local away = others('away', arg.box)
  if away >= n then
    return reply({ refused = 'floor', others = math.max(0, size - 1 - away), floor = size - n, key = 'deploy' })
  end
  local wait = zone_wait('away', arg.box, doc, hand)
  if wait then return reply({ refused = 'zone', wait = wait }) end
end
for _, survey in ipairs(arg.surveys) do
  targets[survey.key] = survey.me
  local announced = {}
  outs = outs or all_out()
  for box, entry in pairs(outs) do
    if box ~= arg.box and entry.targets then announced[entry.targets[survey.key] or ''] = true end
  end
  local others, serving = 0, false
  for _, target in ipairs(survey.in_service) do
    if target == survey.me then serving = true
    elseif not announced[target] then others = others + 1 end
  end
  if serving and not mine and others < size - n then
    return reply({ refused = 'floor', others = others, floor = size - n, key = survey.key })
  end
end

local entry = { deploy = arg.deploy, token = arg.token, since = mine and mine.since or now, renewed = now, ttl = arg.ttl,
                targets = targets, begun = arg.deploy, hand = hand and hand.reason or nil,
                purpose = hand and hand.purpose or nil }
redis.call('HSET', base .. 'out', arg.box, cjson.encode(entry))
lock.renewed = now
set_lock(arg.suffix, lock, arg.ttl)
if rolls(doc, arg.deploy) and row_of(arg.deploy, arg.box) then
  set_row(arg.deploy, arg.box, 'draining')
  wake(arg.deploy, 0)
end
weigh(arg.box)
return reply({ left = true })
