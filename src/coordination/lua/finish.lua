-- finish: a box is through, well or not.
-- Promises: in one step the row gets its last phase, `remaining` falls if the row was unfinished, the box leaves `out`
-- if it is in service again, its own lock is freed (never a successor's), and one waiter is woken, or all where only the
-- box's hold kept them. A worker whose box has a successor changes nothing of it.
-- arg: box, deploy, phase, tag, detail, in_service, running (the tag that the box runs now); suffix, token where it
--      holds a lock; quiet (wake nobody: the box only gives the lock back)

local doc, row, mine = read('current'), row_of(arg.deploy, arg.box), out_entry(arg.box)
local lock = arg.suffix and lock_at(arg.suffix)
local own = lock and lock.token == arg.token
local successor = arg.token and (mine and mine.token ~= arg.token or lock and lock.box == arg.box and not own)

if row and arg.phase and not successor
  and (UNFINISHED[row.phase] or row.phase == 'lost' or row.phase == 'gone' or arg.token) then
  set_row(arg.deploy, arg.box, arg.phase, arg.tag, arg.detail)
  if not rolls(doc, arg.deploy) then keep_for_a_while(arg.deploy) end
end
if arg.running then redis.call('HSET', base .. 'running', arg.box, arg.running) end
local held = redis.call('HDEL', of(arg.deploy, 'hold'), arg.box) == 1
if mine and arg.in_service and not successor then redis.call('HDEL', base .. 'out', arg.box) end
if mine and mine.purpose and not (arg.in_service or arg.quiet or successor) then
  -- What it was out for is over; that it stays out is another matter.
  mine.purpose = nil
  redis.call('HSET', base .. 'out', arg.box, cjson.encode(mine))
end
if own then delete_lock(arg.suffix, arg.box) end
if arg.token then end_token(arg.box, arg.token) end
freed()
weigh(arg.box)
if doc and not arg.quiet then wake(doc.id, held and ALL or for_one_lock()) end
return reply({ remaining = row and remaining_of(arg.deploy) or nil })
