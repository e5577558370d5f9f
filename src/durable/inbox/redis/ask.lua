-- Asks whether a stream would take an event, and changes nothing: each step of admit.lua, so taken that it comes to nothing.
-- KEYS: the stream, a key of the kind that remembers identities. ARGV: max_backlog; `ignoring`. Answers the stream's length;
-- if it would not take one, also the command that was refused and why; if it is full, also the groups that need its first
-- entry.
local stream, seen, room = KEYS[1], KEYS[2], tonumber(ARGV[1])

local function why(reply)
  return type(reply) == 'table' and reply.err
end

local length = redis.pcall('XLEN', stream)
if why(length) then
  return {0, 'XLEN', why(length)}
end

-- No entry may have this id, and that is looked at last: after the permissions, and where there are entries, which are all
-- later than 0-1, after whether ids are left. NOMKSTREAM is for a server that thinks otherwise.
local entered = why(redis.pcall('XADD', stream, 'NOMKSTREAM', length > 0 and '0-1' or '0-0', 'id', ''))
if entered and not (string.find(entered, '^ERR ') and string.find(entered, ' ID ', 1, true)) then
  return {length, 'XADD', entered}
end

-- An empty stream has to be asked whether ids are left; where that is not allowed, nothing is known of it.
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

-- Only where it is set already, and nothing sets it.
local kept = why(redis.pcall('SET', seen, '', 'XX', 'PX', 1))
if kept then
  return {length, 'SET', kept}
end

if length >= room then
  -- No entry is that old.
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
