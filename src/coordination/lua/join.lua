-- join: a worker takes its place in a deploy.
-- Promises: boxes that the service did not see are added, and count in `remaining`; a box that had finished stays as it
-- is unless a person retries; one that was gone or lost counts again.
-- A list that the deploy knows already is named by its digest alone; one that it does not know is asked for.
-- arg: box, deploy, boxes (the live matching ones that this box sees, sorted) or digest (SHA-1 of them), retry, epoch;
--      zone (this box's, if it has one), with boxes: zones (box → zone)

local doc = read('current')
if not rolls(doc, arg.deploy) then
  return reply({ refused = 'ended', current = doc and doc.id or nil })
end
-- Thousands of boxes come with the same list: it is sent and gone through once.
local members = arg.boxes and digest_of(arg.boxes) or arg.digest
local looked = redis.call('SISMEMBER', of(doc.id, 'members'), members) == 1
if not looked and not arg.boxes then return reply({ unknown = true }) end
for from = 1, looked and 0 or #arg.boxes, 1000 do
  local some = { unpack(arg.boxes, from, math.min(#arg.boxes, from + 999)) }
  for at, known in ipairs(redis.call('HMGET', of(doc.id, 'boxes'), unpack(some))) do
    if not known and some[at] ~= arg.box then
      if arg.zones and arg.zones[some[at]] then set_zone(some[at], arg.zones[some[at]]) end
      set_row(doc.id, some[at], 'expected')
    end
  end
end
if not looked then redis.call('SADD', of(doc.id, 'members'), members) end
if arg.zone then set_zone(arg.box, arg.zone) end
local row = row_of(doc.id, arg.box)
local again = not row or UNFINISHED[row.phase] or row.phase == 'gone' or row.phase == 'lost' or arg.retry
if again then set_row(doc.id, arg.box, 'waiting') end
weigh(arg.box)
local size = size_of(doc.id)
return reply({ joined = again and true or false, phase = row and row.phase or 'waiting', out = out_entry(arg.box) ~= nil,
               size = size, locks = locks_for(size, doc.max_parallel), epoch = epoch().id })
