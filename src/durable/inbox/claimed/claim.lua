-- Looks up an identity, and claims it for its owner.
-- KEYS: seen, claim. ARGV: owner, body, 'forward' or 'drop' (for another body of a known identity), lease in ms, window
-- in ms, form of a new message id (1 or 2).
-- Answers a number, or three numbers for a granted claim (redis.rs parses them).
-- The value of seen is records of 33 bytes a body, with the letters of records.rs. The value of claim is owner (16
-- bytes), body (32), 'F' or 'C', and the end of the lease with the form of the message id as its fraction. Any version
-- can read that as a number.
-- A body of 32 zeros is one whose bytes are not known. It may be every body.
local seen, claim = KEYS[1], KEYS[2]
local owner, body, on_conflict, lease, window = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('GET', seen) or ''
local held = redis.call('GET', claim)

local function flag_of(wanted)
  for from = 1, #known, 33 do
    if string.sub(known, from, from + 31) == wanted then return string.sub(known, from + 32, from + 32), from end
  end
end

local function body_with(wanted)
  for from = 1, #known, 33 do
    if string.sub(known, from + 32, from + 32) == wanted then return string.sub(known, from, from + 31) end
  end
end

local unknown = string.rep('\0', 32)
local function may_be(one, other)
  return one == other or one == unknown or other == unknown
end

local flag, at = flag_of(body)
if flag == 'F' then return 3 end
if flag == 'C' then return 4 end
if flag == 'D' then return 5 end
if flag_of(unknown) == 'F' or body == unknown and (body_with('F') or body_with('C')) then return 3 end

if held then
  if string.sub(held, 1, 16) ~= owner and tonumber(string.sub(held, 50)) > now then return 7 end
  -- The claim was neither committed nor released, so its body may be in the queue as the first.
  local before = string.sub(held, 17, 48)
  if string.sub(held, 49, 49) == 'F' and not flag_of(before) then
    known = known .. before .. 'P'
    redis.call('SET', seen, known, 'PX', window)
  end
end

local first = body_with('F') or (on_conflict == 'forward' and body_with('P')) or body
if not may_be(first, body) and on_conflict == 'drop' then
  -- The body may already have a record, with a 'P'.
  flag, at = flag_of(body)
  if flag then known = string.sub(known, 1, at - 1) .. string.sub(known, at + 33) end
  redis.call('SET', seen, known .. body .. 'D', 'PX', window)
  return 6
end

local place, naming, again = may_be(first, body) and 'F' or 'C', ARGV[6], 0
if held and may_be(string.sub(held, 17, 48), body) then
  naming, again = string.match(string.sub(held, 50), '%.(%d)$') or naming, 1
end
local ends = string.format('%.0f', now + lease) .. '.' .. naming
redis.call('SET', claim, owner .. body .. place .. ends, 'PX', lease + window)
return {place == 'F' and 1 or 2, tonumber(naming), again}
