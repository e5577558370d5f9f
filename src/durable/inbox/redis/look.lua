-- Tells how far each consumer group of a stream is, and changes nothing.
-- KEYS: the stream. Answers nothing if there is no such stream; else the server's clock in ms, the stream's length, its first
-- id (or nothing), its last, the greatest that was deleted, how many entries it has ever had; then of each group, of a thousand
-- at most: its name; the last id that it was given; how many that was, as Redis counts, or -1; how many are pending, and
-- whether all of these are still in the stream and none is after that id; the first pending and the first unread entry there
-- is, each or nothing; in ms how long ago one of its consumers was seen, or -1 without consumers.
local stream = KEYS[1]
if redis.call('EXISTS', stream) == 0 then
  return {}
end
local of = state(stream)
local deleted, last = of['max-deleted-entry-id'], of['last-generated-id']
local answer = {clock(), of.length, of.first or '', last, deleted, of['entries-added'] or 0}
for n, group in ipairs(groups(stream)) do
  if n > 1000 then
    break
  end
  local read, unread = group['last-delivered-id'], ''
  if of.first and earlier(read, of.first) then
    unread = of.first
  elseif earlier(read, last) then
    local next = redis.call('XRANGE', stream, '(' .. read, '+', 'COUNT', 1)[1]
    unread = next and next[1] or ''
  end
  local all_there = 1
  if group.pending > 0 then
    local ends = redis.call('XPENDING', stream, group.name)
    if not of.first or earlier(ends[2], of.first) or not earlier(deleted, ends[2]) or earlier(read, ends[3]) then
      all_there = 0
    end
  end
  table.insert(answer, {
    group.name, read, group['entries-read'] or -1, group.pending, all_there,
    pending(stream, of, group) or '', unread, idle(stream, group) or -1
  })
end
return answer
