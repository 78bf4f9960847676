-- release: a client has rebooted, or does not want to any more: its place is free.
-- Promises: nobody else's place is touched; where it has none, nothing is done.
-- arg: id (what the client calls itself)

local doc, released = read('current'), nil
for box, entry in pairs(all_reboots()) do
  if entry.id == arg.id then
    end_reboot(box)
    if doc then wake(doc.id, for_one_lock()) end
    released = box
  end
end
return reply({ released = released })
