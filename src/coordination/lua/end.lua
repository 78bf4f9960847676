-- end: the service looks at a rolling deploy, passes the verdicts `gone` and `lost`, and ends it when it is over.
-- Promises: the end state is written once, and judged only when nobody works; `deployed` needs every box done and every
-- live box in the table, and as many boxes done as `begin` saw, less n at most: who sees nobody cannot know that. Nothing
-- rolls for ever. `failed` in Serf is no verdict while no other box of the place lives, nor for more than n boxes (or half
-- of them) in one deploy.
-- arg: id, alive, failed, left (boxes, by what Serf says), interval (ms between renewals), ttl, silence (ms after which a
--      box that should speak is asked again), join_timeout, lock_timeout, deploy_timeout (ms), look_gap (ms between two
--      looks after which the service itself was away)

local doc = read('current')
if not rolls(doc, arg.id) then
  local record = read('deploy:' .. arg.id .. ':record')
  return reply({ ended = false, state = record and record.state or 'cancelled' })
end
local id = doc.id

-- Verdicts ----------------------------------------------------------------------------------------------------------

-- After a new epoch, or when the service itself was away, everybody gets three intervals to speak before a verdict.
note_look(id)
redis.call('HSET', of(id, 'tally'), 'thorough', now)
local settled = now >= math.max(epoch().since, tally(id, 'gap')) + 3 * arg.interval

local dead = {}
for _, box in ipairs(arg.left) do dead[box] = 'left the fleet' end
for _, box in ipairs(arg.failed) do dead[box] = 'does not answer in Serf' end

local outs, held, heard = all_out(), {}, {}
for suffix, lock in pairs(all_locks(locks_for(size_of(id), doc.max_parallel))) do
  held[lock.box] = suffix
  heard[lock.box] = lock.renewed
end
for box, entry in pairs(outs) do
  -- One that is out for a reboot has said that it will be silent.
  local until_when = entry.purpose and math.min(now, entry.renewed + arg.ttl) or entry.renewed
  heard[box] = math.max(heard[box] or 0, until_when)
end

-- One that reboots is awaited as long as it has its place: see `reboots`.
for box in pairs(all_reboots()) do heard[box] = now end

-- A box that failed and stays out has no worker that could renew: it is gone only when it has been dead for a whole
-- lock_ttl, for its agent may just restart.
local function is_gone(box, phase, last)
  local out = outs[box]
  if not dead[box] then
    if out and out.dead_since then
      out.dead_since = nil
      redis.call('HSET', base .. 'out', box, cjson.encode(out))
    end
    return false
  end
  if UNFINISHED[phase] then return now - last > 3 * arg.interval end
  if not out or out.hand and phase == 'gone' then return false end
  if not out.dead_since then
    out.dead_since = now
    redis.call('HSET', base .. 'out', box, cjson.encode(out))
  end
  return now - math.max(last, out.dead_since) >= math.max(3 * arg.interval, arg.ttl)
end

local begun = math.max(tally(id, 'begun'), 1)
local by_silence = math.max(locks_for(begun, doc.max_parallel), math.floor(begun / 2)) - tally(id, 'gone_by_silence')
local left_fleet = {}
for _, box in ipairs(arg.left) do left_fleet[box] = true end

-- Whether a verdict that rests on silence alone may be passed. What is not decided waits, and its row says so.
local function may_judge(box)
  if left_fleet[box] then return true end
  if #arg.alive > 0 and by_silence > 0 then
    by_silence = by_silence - 1
    redis.call('HINCRBY', of(id, 'tally'), 'gone_by_silence', 1)
    return true
  end
  local row = row_of(id, box)
  if row then
    row.detail = 'silent, and so is too much of the fleet to call it gone: `deployctl unlock` decides, or its return'
    redis.call('HSET', of(id, 'boxes'), box, cjson.encode(row))
  end
  return false
end

local function bury(box)
  if held[box] then delete_lock(held[box], box) end
  -- What a person keeps out stays so until they bring it back.
  if outs[box] and not outs[box].hand then
    redis.call('HDEL', base .. 'out', box)
    outs[box] = nil
  end
  redis.call('HDEL', base .. 'running', box)
  set_row(id, box, 'gone', nil, dead[box])
  weigh(box)
  freed()
  wake(id, for_one_lock())
end

local rows, silent, dead_done = {}, 0, 0
local flat = redis.call('HGETALL', of(id, 'boxes'))
for at = 1, #flat, 2 do
  local box, row = flat[at], cjson.decode(flat[at + 1])
  row.last = math.max(row.seen, heard[box] or 0)
  local quiet = now - row.last
  if settled and is_gone(box, row.phase, row.last) and may_judge(box) then
    bury(box)
    row.phase = 'gone'
  elseif settled and WORKING[row.phase] and quiet > math.max(arg.ttl, outs[box] and outs[box].ttl or 0) then
    set_row(id, box, 'lost', nil, 'no sign of its worker since it was ' .. row.phase .. '; `deployctl run` there repairs it')
    weigh(box)
    row.phase = 'lost'
  -- A killed worker is called again too, but later: it may only be slow.
  elseif UNFINISHED[row.phase] and quiet > (WORKING[row.phase] and 2 or 1) * arg.silence then
    silent = silent + 1
  end
  if settled and row.phase == 'done' and dead[box] and quiet > 3 * arg.interval then dead_done = dead_done + 1 end
  rows[box] = row
end
-- Boxes that are out from an earlier deploy, and died since.
for box in pairs(outs) do
  if settled and not rows[box] and is_gone(box, nil, heard[box]) and may_judge(box) then bury(box) end
end

-- Whoever seemed dead is looked after until it lives again.
local fading = 0
for _, out in pairs(outs) do if out.dead_since then fading = fading + 1 end end
redis.call('HSET', of(id, 'tally'), 'fading', fading)

-- Zones ---------------------------------------------------------------------------------------------------------------

-- A zone is lost by Serf's word alone, before any verdict: nothing that its boxes use up is free for others meanwhile.
local zones, zone_by_box = zones_of(id), {}
if zones then
  local lives = {}
  for box, row in pairs(rows) do
    local zone = zone_of(box)
    zone_by_box[box] = zone
    if row.phase ~= 'gone' and not dead[box] then lives[zone] = true end
  end
  for name, zone in pairs(zones) do
    local was = redis.call('SISMEMBER', of(id, 'lost'), name) == 1
    local is = not lives[name] and zone.size + zone.gone > 1
    if settled and #arg.alive > 0 and is and not was then redis.call('SADD', of(id, 'lost'), name) end
    if was and not is then
      redis.call('SREM', of(id, 'lost'), name)
      freed()
      wake(id, ALL)
    end
  end
end

-- Boxes that work, and boxes that may still be granted a lock ----------------------------------------------------------------------------------------

-- Counts only what time does not free: locks expire, and old entries of `out` cease to count.
local n = locks_for(size_of(id), doc.max_parallel)
settle(n)
local by = redis.call('ZRANGEBYSCORE', base .. 'used', 'inf', 'inf')
local stuck, stuck_zones = #by, {}
for name, zone in pairs(zones or {}) do
  local kept = redis.call('ZCOUNT', base .. 'used:' .. name, 'inf', 'inf')
  stuck_zones[name] = kept >= locks_for(zone.size, doc.max_parallel)
end
local working, awaited, last_heard = false, {}, tally(id, 'progress')
for box, row in pairs(rows) do
  if UNFINISHED[row.phase] then
    if WORKING[row.phase] or held[box] and now - row.last <= arg.ttl then working = true end
    local free = stuck < n and not stuck_zones[zone_by_box[box]]
    if free or outs[box] and not outs[box].hand then
      awaited[#awaited + 1] = box
      last_heard = math.max(last_heard, row.last)
    end
  end
end
table.sort(awaited)

-- The end -------------------------------------------------------------------------------------------------------------

local function over(state, reason)
  end_deploy(doc, state, reason)
  return reply({ ended = true, state = state, reason = reason })
end

local cancel = cancel_of(id)
if not cancel and not doc.pause and now - doc.started - (doc.paused_for or 0) > arg.deploy_timeout then
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
      weigh(box)
      added = added + 1
    end
  end
  if added > 0 then return reply({ ended = false, state = 'rolling', silent = added }) end
  local bad = {}
  for box, row in pairs(rows) do
    -- A box that a person keeps out was left alone on purpose.
    if row.phase ~= 'done' and row.phase ~= 'gone' and not (outs[box] and outs[box].hand) then bad[#bad + 1] = box end
  end
  table.sort(bad)
  if #bad > 0 then return over('failed', 'not through: ' .. table.concat(bad, ', ')) end
  if tally(id, 'done') == 0 then return over('failed', 'no box is left that could be done') end
  local kept = 0
  for box, entry in pairs(outs) do if entry.hand and rows[box] then kept = kept + 1 end end
  local wanted = begun - locks_for(begun, doc.max_parallel) - kept
  if tally(id, 'done') < wanted then
    return over('failed', 'only ' .. tally(id, 'done') .. ' of ' .. begun .. ' boxes are done; the others are gone')
  end
  if #arg.alive == 0 then return reply({ ended = false, state = 'rolling', silent = 0 }) end
  return over('deployed')
end

-- A step passes when its boxes are done and have served for as long as it lasts. Its places are never more than that,
-- so one that is lost and does not come back ends the deploy.
if (step_of(doc)) and (doc.step_dead or 0) ~= dead_done then
  doc.step_dead = dead_done
  save(doc)
end
local step, places = step_of(doc)
if step and not doc.pause then
  local served = tally(id, 'done') >= places
  if not served and settled and not working and tally(id, 'done') + tally(id, 'lost') >= places then
    return over('failed', step_name(doc) .. ' cannot pass: ' .. tally(id, 'lost') .. ' lost')
  end
  if served ~= (doc.step_since ~= nil) then
    doc.step_since = served and now or nil
    save(doc)
  end
  if served and not step.lasts then
    doc.pause = { by = 'deployctl', reason = step_name(doc) .. ' is done: `deployctl resume` approves it', at = now, step = true }
    save(doc)
  elseif served and now - doc.step_since >= step.lasts then
    doc.step, doc.step_since = doc.step + 1, nil
    save(doc)
    redis.call('HSET', of(id, 'tally'), 'progress', now)
    freed()
    wake(id, ALL)
  end
end
local stands = doc.pause or doc.step_since

if settled and not working and not doc.gated and not holder(id, '') then
  if #awaited == 0 then
    local reason, alive = 'no lock is left: ' .. table.concat(by, ', ') .. ' failed or stay out', {}
    for _, box in ipairs(arg.alive) do alive[box] = true end
    for _, box in ipairs(by) do
      if outs[box] and outs[box].hand and not alive[box] then
        reason = reason .. '; ' .. box .. ' is kept out by hand and not alive: if it is no more, `deployctl unlock -r '
          .. doc.role .. ' -e ' .. doc.environment .. ' --box ' .. box .. ' --reason TEXT` frees its lock'
      end
    end
    return over('failed', reason)
  end
  if not stands and now - last_heard > arg.join_timeout then
    return over('failed', 'nothing was heard of ' .. table.concat(awaited, ', ') .. ' within join_timeout')
  end
end
if not stands and now - tally(id, 'progress') > arg.lock_timeout then
  local lost = redis.call('SMEMBERS', of(id, 'lost'))
  local why = #lost > 0 and ': lost with all boxes: zone ' .. table.concat(lost, ', ') or ''
  set_cancel(id, { by = 'deployctl', reason = 'no progress within lock_timeout' .. why, failed = true })
end
return reply({ ended = false, state = 'rolling', silent = silent })
