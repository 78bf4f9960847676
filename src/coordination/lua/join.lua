-- join: a worker takes its place in a deploy.
-- Promises: boxes that the service did not see are added, and count in `remaining`; a box that had finished stays as it
-- is unless a person retries; one that was gone or lost counts again.
-- arg: box, deploy, boxes (the live matching ones that this box sees, sorted), retry, epoch

local doc = read('current')
if not rolls(doc, arg.deploy) then
  return reply({ refused = 'ended', current = doc and doc.id or nil })
end
-- A thousand boxes come with the same list: it is gone through once.
local members = redis.sha1hex(table.concat(arg.boxes, ','))
local looked = redis.call('HGET', of(doc.id, 'tally'), 'members') == members
for from = 1, looked and 0 or #arg.boxes, 1000 do
  local some = { unpack(arg.boxes, from, math.min(#arg.boxes, from + 999)) }
  for at, known in ipairs(redis.call('HMGET', of(doc.id, 'boxes'), unpack(some))) do
    if not known and some[at] ~= arg.box then set_row(doc.id, some[at], 'expected') end
  end
end
if not looked then redis.call('HSET', of(doc.id, 'tally'), 'members', members) end
local row = row_of(doc.id, arg.box)
local again = not row or UNFINISHED[row.phase] or row.phase == 'gone' or row.phase == 'lost' or arg.retry
if again then set_row(doc.id, arg.box, 'waiting') end
local size = size_of(doc.id)
return reply({ joined = again and true or false, phase = row and row.phase or 'waiting', out = out_entry(arg.box) ~= nil,
               size = size, locks = locks_for(size, doc.max_parallel), epoch = epoch().id })
