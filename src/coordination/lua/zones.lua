-- Zones: boxes that fail together, by a tag of their Serf agents. Not more than n of each zone use up capacity at once, by
-- the zone's own size, beside the n of the whole. Boxes without a zone are bound by the whole alone; where there are fewer
-- than two zones nothing is bound.
--   zones, zone_names   box → its zone; every zone that a box has or had since the last `begin`
--   deploy:ID:zones     `ZONE size` (boxes of the table, less gone), `ZONE gone`, `ZONE waits` (for a lock), `ZONE expected`:
--                       kept with the rows, `ZONE` is empty for boxes without one; nothing where no box has one
--   deploy:ID:lost      zones of two or more boxes none of which lives, as the service sees it (`end`)
-- A zone that is lost counts as if its boxes were there and as many of them out as its own n allows, until one of them is
-- back: what it used up frees nothing for the others, and their own n do not grow.

-- Counts the boxes of each zone anew from the table.
local function recount_zones(id)
  redis.call('DEL', of(id, 'zones'))
  local flat = redis.call('HGETALL', of(id, 'boxes'))
  for at = 1, #flat, 2 do add_to_zone(id, zone_of(flat[at]), cjson.decode(flat[at + 1]).phase, 1) end
end

-- A box says, or the service says of it, in which zone it is.
local function set_zone(box, zone)
  local old, id = zone_of(box), rolling_id()
  if zone == old then return end
  redis.call('HSET', base .. 'zones', box, zone)
  zone_count = zone_count + redis.call('SADD', base .. 'zone_names', zone)
  for _, set in ipairs(SETS) do redis.call('ZREM', base .. set .. ':' .. old, box) end
  if id == '' then return end
  if redis.call('HLEN', of(id, 'zones')) == 0 then return recount_zones(id) end
  local row = row_of(id, box)
  add_to_zone(id, old, row and row.phase, -1)
  add_to_zone(id, zone, row and row.phase, 1)
end

-- Of all boxes that live, before a deploy begins. Who is gone is forgotten, unless it is out, reboots, or has a
-- lock still.
local function set_zones(boxes, zones)
  local lives = {}
  for _, box in ipairs(boxes) do
    lives[box] = true
    if zones[box] then set_zone(box, zones[box]) elseif zone_of(box) ~= '' then redis.call('HDEL', base .. 'zones', box) end
  end
  for _, box in ipairs(redis.call('HKEYS', base .. 'zones')) do
    if not lives[box] and not out_entry(box) and not own_lock(box) and not reboot_of(box) then redis.call('HDEL', base .. 'zones', box) end
  end
  for _, zone in ipairs(redis.call('SMEMBERS', base .. 'zone_names')) do
    for _, set in ipairs(SETS) do redis.call('DEL', base .. set .. ':' .. zone) end
  end
  redis.call('DEL', base .. 'zone_names')
  zone_count = 0
  for _, zone in ipairs(redis.call('HVALS', base .. 'zones')) do
    zone_count = zone_count + redis.call('SADD', base .. 'zone_names', zone)
  end
end

local function read_zones(id)
  local flat, zones = redis.call('HGETALL', of(id, 'zones')), {}
  for at = 1, #flat, 2 do
    local zone, part = string.match(flat[at], '^(%S*) (%w+)$')
    if zone then
      zones[zone] = zones[zone] or { size = 0, gone = 0, waits = 0, expected = 0 }
      zones[zone][part] = tonumber(flat[at + 1])
    end
  end
  return zones
end

-- The zones of the table, by name; nothing where there are fewer than two. A script of an older version changes rows and
-- counts no zones: where the sums are not those of the table, they are made anew.
local function zones_of(id)
  local zones = zone_count > 0 and read_zones(id) or {}
  if next(zones) == nil then return nil end
  local sums = { size = -size_of(id), waits = -tally(id, 'waiting') - tally(id, 'pulling'), expected = -tally(id, 'expected') }
  for _, zone in pairs(zones) do
    for part, sum in pairs(sums) do sums[part] = sum + zone[part] end
  end
  if sums.size ~= 0 or sums.waits ~= 0 or sums.expected ~= 0 then
    recount_zones(id)
    zones = read_zones(id)
  end
  zones[''] = nil
  local many = 0
  for name, zone in pairs(zones) do
    if zone.size + zone.gone > 0 then many = many + 1 else zones[name] = nil end
  end
  return many > 1 and zones or nil
end

-- The zone's own n is used up by others than `box`.
local function zone_is_full(set, box, zone, n)
  local used = others(set .. ':' .. zone, box)
  if used < n then return nil end
  return used .. ' of zone ' .. zone .. (used == 1 and ' is' or ' are') .. ' out, and ' .. n .. ' may be: '
    .. some_of(set .. ':' .. zone, box)
end

-- For what `box` must wait because of zones, beside the rule for the whole; nothing where they let it go. `set`: who counts;
-- `hand`: as `acquire` has it.
local function zone_wait(set, box, doc, hand)
  local mine = zone_of(box)
  if hand then
    return hand.zone and zone_is_full(set, box, hand.zone.name, locks_for(hand.zone.size, hand.max_parallel))
  end
  local zones = doc and zones_of(doc.id)
  if not zones then return nil end
  local of_mine = zones[mine]
  local full = of_mine and zone_is_full(set, box, mine, locks_for(of_mine.size, doc.max_parallel))
  if full then return full end
  local size, used, lost = size_of(doc.id), others(set, box), nil
  for _, name in ipairs(redis.call('SMEMBERS', of(doc.id, 'lost'))) do
    local zone = zones[name]
    if zone and name ~= mine then
      if not lost or name < lost then lost = name end
      size = size + zone.gone
      used = used + math.max(0, locks_for(zone.size + zone.gone, doc.max_parallel) - others(set .. ':' .. name, box))
    end
  end
  return lost and used >= locks_for(size, doc.max_parallel)
    and 'zone ' .. lost .. ' is lost, and what it uses up is free for nobody else' or nil
end

-- In a step a box of the smallest zone goes first: a smaller zone than the box's own that has one which may go and waits, or
-- may still come (for `arg.settle`); nothing after a lock's life without progress.
local function zone_before(doc, box)
  local zones, still = zones_of(doc.id), now - tally(doc.id, 'progress')
  if not zones or still > arg.ttl then return nil end
  local first, least = nil, (zones[zone_of(box)] or { size = math.huge }).size
  for name, zone in pairs(zones) do
    local comes = zone.waits > 0 or zone.expected > 0 and still < arg.settle
    if comes and zone.size < least and others('used:' .. name, box) < locks_for(zone.size, doc.max_parallel)
      and redis.call('SISMEMBER', of(doc.id, 'lost'), name) == 0 then
      first, least = name, zone.size
    end
  end
  return first
end

-- How many waiters are woken for one lock: where there are zones, the first of them may be of one that is full.
local function for_one_lock() return zone_count > 1 and 2 * zone_count or 1 end
