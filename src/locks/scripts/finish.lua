-- finish: a box is through, well or not.
-- Promises: in one step the row gets its last phase, `remaining` falls if the row was unfinished, the box leaves `out`
-- if it is in service again, its own lock is freed (never a successor's), and one waiter is woken.
-- arg: box, deploy, phase, tag, detail, in_service, running (the tag that the box runs now); suffix, token where it
--      holds a lock; quiet (wake nobody: the box only gives the lock back)

local row = row_of(arg.deploy, arg.box)
if row and arg.phase and (UNFINISHED[row.phase] or row.phase == 'lost' or row.phase == 'gone' or arg.token) then
  set_row(arg.deploy, arg.box, arg.phase, arg.tag, arg.detail)
end
if arg.running then redis.call('HSET', base .. 'running', arg.box, arg.running) end
redis.call('HDEL', of(arg.deploy, 'hold'), arg.box)

local mine = out_entry(arg.box)
if mine and arg.in_service and (not arg.token or mine.token == arg.token) then
  redis.call('HDEL', base .. 'out', arg.box)
end
if arg.suffix then
  local lock = read('lock:' .. arg.suffix)
  if lock and lock.token == arg.token then delete_lock(arg.suffix) end
end
freed()
local doc = read('current')
if doc and not arg.quiet then wake(doc.id, false) end
return reply({ remaining = row and remaining_of(arg.deploy) or nil })
