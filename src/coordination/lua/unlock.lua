-- unlock: a person frees a box's lock and its place for a reboot, and takes it out of `out`.
-- Promises: refused while the holder renews, unless by force.
-- arg: box, force, interval (ms between renewals), by, reason

local doc = read('current')
local locks = all_locks(doc and locks_for(size_of(doc.id), doc.max_parallel) or 1)
local mine, held = out_entry(arg.box), false
local renewed = mine and mine.renewed or 0
for _, lock in pairs(locks) do
  if lock.box == arg.box then
    held = lock.deploy or true
    renewed = math.max(renewed, lock.renewed)
  end
end
local reboots = reboot_of(arg.box)
if not mine and not held and not reboots then return reply({ refused = 'nothing' }) end
if now - renewed <= 3 * arg.interval and not arg.force then
  return reply({ refused = 'renewed', ago = now - renewed })
end
for suffix, lock in pairs(locks) do
  if lock.box == arg.box then
    delete_lock(suffix, arg.box)
    if lock.token then end_token(arg.box, lock.token) end
  end
end
if mine and mine.token and mine.token ~= '' then end_token(arg.box, mine.token) end
redis.call('HDEL', base .. 'out', arg.box)
redis.call('HDEL', base .. 'reboots', arg.box)
freed()
if doc then
  local row = row_of(doc.id, arg.box)
  -- One that is out from an earlier deploy has its turn in this one yet.
  if row and (WORKING[row.phase] or held == doc.id and UNFINISHED[row.phase]) then
    set_row(doc.id, arg.box, 'lost', nil, 'freed by ' .. arg.by .. ': ' .. (arg.reason or ''))
  end
  wake(doc.id, for_one_lock())
end
weigh(arg.box)
return reply({ freed = true })
