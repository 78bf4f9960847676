-- pause: a person lets nobody begin in the deploy that rolls, or lets it go on.
-- Promises: while it is paused nobody is granted a lock or leaves; who is out comes back; the deadlines of the deploy
-- stand still. What it waits for in a step waits as long as the pause lasted.
-- A step that ends in a pause has passed when somebody lets it go on.
-- arg: id, by; reason (to pause; absent to go on)

local doc = read('current')
if not rolls(doc, arg.id) then return reply({ refused = 'ended', state = doc and doc.state or nil }) end
if arg.reason then
  if doc.pause then return reply({ refused = 'paused' }) end
  doc.pause = { by = arg.by, reason = arg.reason, at = now }
  save(doc)
  wake(doc.id, ALL)
  return reply({ id = doc.id })
end
if not doc.pause then return reply({ refused = 'not_paused' }) end
local lasted = now - doc.pause.at
doc.paused_for = (doc.paused_for or 0) + lasted
if doc.pause.step then
  doc.step, doc.step_since = doc.step + 1, nil
elseif doc.step_since then
  doc.step_since = doc.step_since + lasted
end
doc.pause = nil
save(doc)
redis.call('HSET', of(doc.id, 'tally'), 'progress', now)
freed()
wake(doc.id, ALL)
return reply({ id = doc.id, lasted = lasted })
