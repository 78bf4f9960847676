-- renew: a worker is alive; it says where it stands and hears whether the deploy is cancelled.
-- Promises: extends only what is the worker's own (by token); a lock that went missing comes back if its suffix is free;
-- an `out` entry that went missing comes back too, because the box is out whatever Redis remembers.
-- arg: box, deploy, phase, detail, epoch; with a lock: suffix, token, ttl, out (the box is out), hand (by hand)

local doc = read('current')
local seen = epoch()
local lost

if arg.suffix then
  local lock = read('lock:' .. arg.suffix)
  if lock and lock.token == arg.token then
    lock.renewed = now
    set_lock(arg.suffix, lock, arg.ttl)
  elseif lock then
    lost = lock.box
  else
    set_lock(arg.suffix, { box = arg.box, deploy = arg.deploy, token = arg.token, since = now, renewed = now }, arg.ttl)
    local top = tonumber(redis.call('HGET', base .. 'walk', 'top') or 0)
    redis.call('HSET', base .. 'walk', 'top', math.max(top, arg.suffix))
  end
  local mine = out_entry(arg.box)
  if arg.out and not mine then mine = { deploy = arg.deploy, token = arg.token, since = now, targets = {} } end
  if mine and mine.token == arg.token then
    mine.renewed, mine.ttl = now, arg.ttl
    redis.call('HSET', base .. 'out', arg.box, cjson.encode(mine))
  end
end

local row = row_of(arg.deploy, arg.box)
if row and UNFINISHED[row.phase] then
  if arg.phase then set_row(arg.deploy, arg.box, arg.phase, nil, arg.detail) else touch_row(arg.deploy, arg.box) end
elseif row and row.phase == 'lost' and arg.phase then
  set_row(arg.deploy, arg.box, arg.phase, nil, arg.detail)
end
return reply({ cancel = cancel_of(arg.deploy), ended = not rolls(doc, arg.deploy), lost_to = lost, epoch = seen.id })
