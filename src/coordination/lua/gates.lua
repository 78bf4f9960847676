-- gates: the conditions before the start were asked.
-- Promises: one service asks them, once; boxes take locks only after they passed; a failure ends the deploy.
-- arg: id, step (`claim`, `pass` or `fail`), owner, reason

local doc = read('current')
if not rolls(doc, arg.id) or not doc.gated then return reply({ refused = 'ended' }) end
if arg.step == 'claim' then
  if doc.gate_owner then return reply({ refused = 'claimed', owner = doc.gate_owner }) end
  doc.gate_owner = arg.owner
elseif arg.step == 'pass' then
  doc.gated = nil
  redis.call('HSET', of(doc.id, 'tally'), 'progress', now)
else
  doc.gated = nil
  end_deploy(doc, 'failed', arg.reason)
  return reply({ ended = true })
end
save(doc)
wake(doc.id, ALL)
return reply({ ok = true })
