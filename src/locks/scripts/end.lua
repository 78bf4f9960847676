-- end: the service looks at a rolling deploy, passes the verdicts `gone` and `lost`, and ends it when it is over.
-- Promises: the end state is written once, and judged only when nobody works; `deployed` needs every box done and every
-- live box in the table; nothing rolls for ever.
-- arg: id, alive, failed, left (boxes, by what Serf says), interval (ms between renewals), ttl, silence (ms after which a
--      box that should speak is asked again), join_timeout, lock_timeout, deploy_timeout (ms)

local doc = read('current')
if not rolls(doc, arg.id) then return reply({ ended = false, state = doc and doc.id == arg.id and doc.state or 'cancelled' }) end
local id = doc.id

local dead = {}
for _, box in ipairs(arg.left) do dead[box] = 'left the fleet' end
for _, box in ipairs(arg.failed) do dead[box] = 'does not answer in Serf' end

local n = locks_for(size_of(id), doc.max_parallel)
local locks, outs, held, heard = all_locks(n), all_out(), {}, {}
for suffix, lock in pairs(locks) do
  held[lock.box] = suffix
  heard[lock.box] = lock.renewed
end
for box, entry in pairs(outs) do heard[box] = math.max(heard[box] or 0, entry.renewed) end

local function bury(box, why)
  if held[box] then delete_lock(held[box]) end
  redis.call('HDEL', base .. 'out', box)
  outs[box] = nil
  redis.call('HDEL', base .. 'running', box)
  if row_of(id, box) then set_row(id, box, 'gone', nil, why) end
  freed()
  wake(id, false)
end

local rows, silent = {}, 0
local flat = redis.call('HGETALL', of(id, 'boxes'))
for at = 1, #flat, 2 do
  local box, row = flat[at], cjson.decode(flat[at + 1])
  local last = math.max(row.seen, heard[box] or 0)
  if dead[box] and (UNFINISHED[row.phase] or outs[box]) and now - last > 3 * arg.interval then
    bury(box, dead[box])
    row.phase = 'gone'
  elseif WORKING[row.phase] and not held[box] and now - last > arg.ttl then
    set_row(id, box, 'lost', nil, 'no sign of its worker since it was ' .. row.phase .. '; `deployctl run` there repairs it')
    row.phase = 'lost'
  end
  if (row.phase == 'expected' or row.phase == 'waiting' or row.phase == 'pulling') and now - last > arg.silence then
    silent = silent + 1
  end
  row.last = last
  rows[box] = row
end
-- Boxes that are out from an earlier deploy, and died since.
for box, entry in pairs(outs) do
  if dead[box] and not entry.hand and now - entry.renewed > 3 * arg.interval then bury(box, dead[box]) end
end

local function names(phase)
  local found = {}
  for box, row in pairs(rows) do if row.phase == phase then found[#found + 1] = box end end
  table.sort(found)
  return found
end

local function over(state, reason)
  end_deploy(doc, state, reason)
  return reply({ ended = true, state = state, reason = reason })
end

local working, quiet_since, may_restore = false, 0, false
for box, row in pairs(rows) do
  if WORKING[row.phase] or (held[box] and UNFINISHED[row.phase]) then working = true end
  if UNFINISHED[row.phase] then
    quiet_since = math.max(quiet_since, row.last)
    if outs[box] and not outs[box].hand then may_restore = true end
  end
end

local progress = tally(id, 'progress')
local cancel = cancel_of(id)
if not cancel and now - doc.started > arg.deploy_timeout then
  cancel = set_cancel(id, { by = 'deployctl', reason = 'deploy_timeout has passed', failed = true })
end
if cancel then
  if working then return reply({ ended = false, state = 'rolling', silent = 0 }) end
  return over(cancel.broken and 'broken' or cancel.failed and 'failed' or 'cancelled', cancel.reason)
end

if remaining_of(id) == 0 then
  local added = 0
  for _, box in ipairs(arg.alive) do
    if not rows[box] or rows[box].phase == 'gone' then
      set_row(id, box, 'expected')
      added = added + 1
    end
  end
  if added > 0 then return reply({ ended = false, state = 'rolling', silent = added }) end
  local bad = names('failed')
  for _, phase in ipairs({ 'lost', 'rolled_back', 'cancelled' }) do
    for _, box in ipairs(names(phase)) do
      -- A box that a person keeps out was left alone on purpose.
      if not (outs[box] and outs[box].hand) then bad[#bad + 1] = box end
    end
  end
  if #bad > 0 then return over('failed', 'not through: ' .. table.concat(bad, ', ')) end
  if tally(id, 'done') == 0 then return over('failed', 'no box is left that could be done') end
  return over('deployed')
end

if not working and not doc.gated and not holder(id, '') then
  local used, by = used_by_others(id, '', all_locks(n))
  if used >= n and not may_restore then
    return over('failed', 'no lock is left: ' .. table.concat(by, ', ') .. ' failed or stay out')
  end
  local quiet = now - math.max(quiet_since, progress)
  if quiet > arg.join_timeout then
    return over('failed', 'nothing was heard of ' .. table.concat(names('expected'), ', ')
      .. table.concat(names('waiting'), ', ') .. ' within join_timeout')
  end
end
if now - progress > arg.lock_timeout then
  set_cancel(id, { by = 'deployctl', reason = 'no progress within lock_timeout', failed = true })
end
return reply({ ended = false, state = 'rolling', silent = silent })
