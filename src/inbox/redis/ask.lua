-- Asks whether a stream would take an event, and changes nothing: each step of admit.lua, so taken that it comes to nothing.
-- KEYS: the stream, a key of the kind that remembers identities. Answers the stream's length, and if it would not take
-- one, the command that was refused and why.
local stream, seen = KEYS[1], KEYS[2]

local function why(reply)
  return type(reply) == 'table' and reply.err
end

local length = redis.pcall('XLEN', stream)
if why(length) then
  return {0, 'XLEN', why(length)}
end

-- No entry may have this id, and that is looked at after the permissions. NOMKSTREAM is for a server that thinks otherwise.
local entered = why(redis.pcall('XADD', stream, 'NOMKSTREAM', '0-0', 'id', ''))
if entered and not string.find(entered, '0-0', 1, true) and not string.find(entered, ' ID ', 1, true) then
  return {length, 'XADD', entered}
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

return {length}
