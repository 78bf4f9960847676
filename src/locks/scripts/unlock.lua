-- unlock: a person frees a box's lock and takes it out of `out`.
-- Promises: refused while the holder renews, unless by force.
-- arg: box, force, interval (ms between renewals), by, reason

local doc = read('current')
local locks, mine = all_locks(1), out_entry(arg.box)
local renewed, found = mine and mine.renewed or 0, mine ~= nil
for _, lock in pairs(locks) do
  if lock.box == arg.box then
    found = true
    renewed = math.max(renewed, lock.renewed)
  end
end
if not found then return reply({ refused = 'nothing' }) end
if now - renewed <= 3 * arg.interval and not arg.force then
  return reply({ refused = 'renewed', ago = now - renewed })
end
for suffix, lock in pairs(locks) do if lock.box == arg.box then delete_lock(suffix) end end
redis.call('HDEL', base .. 'out', arg.box)
freed()
if doc then
  local row = row_of(doc.id, arg.box)
  if row and UNFINISHED[row.phase] then set_row(doc.id, arg.box, 'lost', nil, 'freed by ' .. arg.by .. ': ' .. (arg.reason or '')) end
  wake(doc.id, false)
end
return reply({ freed = true })
