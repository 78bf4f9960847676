-- begin: the service starts a deploy.
-- Promises: at most one deploy rolls; an id begins at most once (so a promotion happens exactly once); when it
-- supersedes, the old deploy ends in the same step. What waits in the queue is older than what begins now: it is taken
-- out of the queue.
-- arg: doc (the deploy), boxes (the live matching ones), zones (box → zone, of those that have one), supersede, gated, epoch

local old = read('current')
local known = redis.call('GET', of(arg.doc.id, 'record'))
if known and cjson.decode(known).state ~= 'queued' then return reply({ refused = 'exists' }) end
if old and old.state == 'rolling' and not arg.supersede then return reply({ refused = 'rolling', id = old.id }) end

-- Before the old deploy's waiters are woken, not after.
redis.call('DEL', base .. 'wake')
redis.call('ZREMRANGEBYSCORE', base .. 'deploys', 0, now - 2 * KEPT)
if old and old.state == 'rolling' then
  local cancel = set_cancel(old.id, { by = arg.doc.by, reason = 'superseded by ' .. arg.doc.tag, superseded = true })
  end_deploy(old, cancel.broken and 'broken' or 'cancelled', cancel.reason)
end

local doc = arg.doc
doc.schema, doc.state, doc.started, doc.gated = SCHEMA, 'rolling', now, arg.gated or nil
doc.step = doc.steps and 1 or nil
doc.last_good = old and old.last_good or nil
redis.call('SET', base .. 'current', cjson.encode(doc))
save(doc)
redis.call('PERSIST', of(doc.id, 'record'))
redis.call('ZADD', base .. 'deploys', now, doc.id)
redis.call('HSET', of(doc.id, 'tally'), 'progress', now, 'begun', #arg.boxes)
redis.call('SET', of(doc.id, 'remaining'), 0)
if arg.zones then set_zones(arg.boxes, arg.zones) end
for _, box in ipairs(arg.boxes) do set_row(doc.id, box, 'expected') end
if zone_count > 0 then recount_zones(doc.id) end
table.sort(arg.boxes)
redis.call('SADD', of(doc.id, 'members'), digest_of(arg.boxes))
freed()
distrust()

local queued, replaced = read('queued'), nil
if queued and queued.id == doc.id then
  redis.call('DEL', base .. 'queued')
elseif queued then
  end_queued(queued, doc.tag .. ' began after this was queued')
  replaced = queued.id
end
return reply({ epoch = epoch().id, replaced = replaced })
