-- reboots: the service looks at the boxes that have a place for a reboot, whether a deploy rolls or not.
-- Promises: a place is taken back only when Serf has called its box dead for a whole `ttl`, at every look of the service
-- and without a gap between two; and never while no other box of the place lives: who sees nobody judges nobody.
-- arg: alive, failed, left (boxes, by what Serf says), ttl, look_gap (ms between two looks after which the service itself
--      was away)

local doc, dead, gone = read('current'), {}, {}
for _, list in ipairs({ arg.failed, arg.left }) do
  for _, box in ipairs(list) do dead[box] = true end
end
for box, entry in pairs(all_reboots()) do
  if dead[box] and #arg.alive > 0 then
    if entry.dead_since == nil or now - (entry.looked or 0) > arg.look_gap then entry.dead_since = now end
    entry.looked = now
    if now - entry.dead_since >= arg.ttl then
      end_reboot(box)
      if doc then wake(doc.id, for_one_lock()) end
      gone[#gone + 1] = box
    else
      redis.call('HSET', base .. 'reboots', box, cjson.encode(entry))
    end
  elseif entry.dead_since ~= nil and not dead[box] then
    entry.dead_since, entry.looked = nil, nil
    redis.call('HSET', base .. 'reboots', box, cjson.encode(entry))
  end
end
return reply({ gone = #gone > 0 and gone or nil })
