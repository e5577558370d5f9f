-- Asks whether a stream would accept an event, and changes nothing. It runs each step of admit.lua in a form without
-- effect.
-- KEYS: the stream, an unused seen key. ARGV: max_backlog; the arguments of `ignoring`.
-- Answers the stream's length. If the stream would refuse, also the refused command and the reason. If it is full, also
-- the groups that need its first entry.
local stream, seen, room = KEYS[1], KEYS[2], tonumber(ARGV[1])

local function why(reply)
  return type(reply) == 'table' and reply.err
end

local length = redis.pcall('XLEN', stream)
if why(length) then
  return {0, 'XLEN', why(length)}
end

-- Redis checks this impossible id last: after the permissions and, in a stream with entries, after whether ids are
-- left. Every entry is later than 0-1. NOMKSTREAM is for a server that checks in another order.
local entered = why(redis.pcall('XADD', stream, 'NOMKSTREAM', length > 0 and '0-1' or '0-0', 'id', ''))
if entered and not (string.find(entered, '^ERR ') and string.find(entered, ' ID ', 1, true)) then
  return {length, 'XADD', entered}
end

-- An empty stream needs XINFO to show whether ids are left. Without that right this is not checked.
local of = length == 0 and redis.pcall('XINFO', 'STREAM', stream) or {}
for i = 1, #of, 2 do
  if of[i] == 'last-generated-id' and of[i + 1] == '18446744073709551615-18446744073709551615' then
    return {length, 'XADD', 'ERR The stream has exhausted the last possible ID'}
  end
end

local known = why(redis.pcall('GET', seen))
if known then
  return {length, 'GET', known}
end

-- XX sets only an existing key, and this key never exists.
local kept = why(redis.pcall('SET', seen, '', 'XX', 'PX', 1))
if kept then
  return {length, 'SET', kept}
end

if length >= room then
  -- No entry is older than 0-0, so nothing is trimmed.
  local trimmed = why(redis.pcall('XTRIM', stream, 'MINID', '=', '0-0'))
  if trimmed then
    return {length, 'XTRIM', trimmed}
  end
  local now = state(stream)
  local keep, holders, count = held(stream, now, ignoring(2))
  if count == 0 or not earlier(now.first, keep) then
    return {length, holders}
  end
end

return {length}
