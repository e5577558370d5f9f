-- Reports how far each consumer group of a stream is, and changes nothing.
-- KEYS: the stream. Answers nothing if the stream does not exist. Otherwise the server's clock in ms, the length, the
-- first id (or an empty text), the last id, the greatest deleted id, and the number of entries ever added. Then, for at
-- most a thousand groups:
-- name; last read id; number of entries read as Redis counts, or -1; number pending; whether all pending entries still
-- exist and none is after the last read id; first pending and first unread entry, each or an empty text; ms since any
-- consumer was active, or -1 without consumers.
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
