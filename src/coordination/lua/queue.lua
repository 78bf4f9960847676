-- queue: a deploy waits for the one that rolls.
-- Promises: one waits for each place, and the newest wins; the one it replaces is cancelled in the same step.
-- arg: doc (the deploy)

local old = read('queued')
if old then end_queued(old, 'replaced in the queue by ' .. arg.doc.tag) end
local doc = arg.doc
doc.schema, doc.state, doc.started = SCHEMA, 'queued', now
redis.call('SET', base .. 'queued', cjson.encode(doc))
redis.call('SET', of(doc.id, 'record'), cjson.encode(doc))
redis.call('ZADD', base .. 'deploys', now, doc.id)
return reply({ replaced = old and old.id or nil })
