-- cancel: stops the deploy that rolls, or takes one that waits out of the queue.
-- Promises: from here on nobody is granted a lock or leaves; every waiting box is woken to hear it.
-- arg: id (the current one when absent), by, reason, broken

local queued = read('queued')
if queued and queued.id == arg.id then
  end_queued(queued, arg.reason)
  return reply({ id = queued.id })
end

local doc = read('current')
local id = arg.id or (doc and doc.id)
if not rolls(doc, id) then return reply({ refused = 'ended', state = doc and doc.state or nil }) end
set_cancel(id, { by = arg.by, reason = arg.reason, broken = arg.broken or nil })
return reply({ id = id })
