-- glance: the service asks whether a look (see `end`) can find anything. It costs the same however many boxes there are.
-- Promises: `look` whenever a verdict, a deadline or the end may be due, and at least every `often`; else nothing is.
-- When in doubt, `look`: it decides by itself. `silent` may name a box too many: to be asked once more does no harm.
-- arg: as `end`, without `alive`; often (ms)

local doc = read('current')
if not rolls(doc, arg.id) then return reply({ look = true }) end
local id = doc.id
note_look(id)

-- Whether one of these boxes, which Serf calls dead, may be called gone.
local function may_be_gone(boxes)
  for from = 1, #boxes, 1000 do
    local some = { unpack(boxes, from, math.min(#boxes, from + 999)) }
    local outs = redis.call('HMGET', base .. 'out', unpack(some))
    for at, text in ipairs(redis.call('HMGET', of(id, 'boxes'), unpack(some))) do
      local phase = text and cjson.decode(text).phase
      local kept = outs[at] and entry_from(outs[at]).hand and phase == 'gone'
      if UNFINISHED[phase or ''] or outs[at] and not kept then return true end
    end
  end
  return false
end

local function before(time) return redis.call('ZCOUNT', of(id, 'seen'), '-inf', '(' .. time) end
local function working_before(time) return redis.call('ZCOUNT', of(id, 'working'), '-inf', '(' .. time) end

-- Whether nobody works and nobody may begin, or nothing is heard of those who may.
local function stands_still()
  if redis.call('ZCARD', of(id, 'working')) > 0 or doc.gated then return false end
  local n = locks_for(size_of(id), doc.max_parallel)
  settle(n)
  for name, zone in pairs(zones_of(id) or {}) do
    if redis.call('ZCOUNT', base .. 'used:' .. name, 'inf', 'inf') >= locks_for(zone.size, doc.max_parallel) then return true end
  end
  local last = redis.call('ZRANGE', of(id, 'seen'), -1, -1, 'WITHSCORES')
  local heard = math.max(tally(id, 'progress'), tonumber(last[2] or 0))
  return redis.call('ZCOUNT', base .. 'used', 'inf', 'inf') >= n or now - heard > arg.join_timeout
end

local look = cancel_of(id) or step_of(doc) or remaining_of(id) == 0
  or now - tally(id, 'thorough') > arg.often or tally(id, 'fading') > 0
  or now - doc.started - (doc.paused_for or 0) > arg.deploy_timeout
  or now - tally(id, 'progress') > arg.lock_timeout
  or zone_count > 0 and redis.call('SCARD', of(id, 'lost')) > 0
  or may_be_gone(arg.failed) or may_be_gone(arg.left)
  or working_before(now - arg.ttl) > 0
  or stands_still()
return reply({ look = look and true or false,
               silent = before(now - arg.silence) + working_before(now - 2 * arg.silence) })
