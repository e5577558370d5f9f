-- Trims a stream past an age by the server's own clock, never past what a consumer group has not read and acknowledged.
-- KEYS: the stream. ARGV: the age in ms, how many entries at most. Answers how many went; 0 when nothing is left to trim.
local stream = KEYS[1]
if redis.call('EXISTS', stream) == 0 then
  return 0
end

-- Ids are two numbers of 64 bits, more than a Lua number holds: compared as digits.
local function less(a, b)
  if #a ~= #b then
    return #a < #b
  end
  return a < b
end

local function parts(id)
  return string.match(id, '^(%d+)%-(%d+)$')
end

local function earlier(a, b)
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  if a_ms ~= b_ms then
    return less(a_ms, b_ms)
  end
  return less(a_seq, b_seq)
end

local function after(id)
  local ms, seq = parts(id)
  if #seq > 15 then
    return id
  end
  return ms .. '-' .. string.format('%.0f', tonumber(seq) + 1)
end

local now = redis.call('TIME')
local cut = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000) - tonumber(ARGV[1])
if cut <= 0 then
  return 0
end
local keep = string.format('%.0f', cut) .. '-0'

for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local of = {}
  for i = 1, #group, 2 do
    of[group[i]] = group[i + 1]
  end
  local unread = after(of['last-delivered-id'])
  local pending = redis.call('XPENDING', stream, of['name'])
  if pending[1] > 0 and earlier(pending[2], unread) then
    unread = pending[2]
  end
  if earlier(unread, keep) then
    keep = unread
  end
end

-- Whole nodes first, a bounded number at a time, so that a great backlog never stops the server; then the rest exactly.
local gone = redis.call('XTRIM', stream, 'MINID', '~', keep, 'LIMIT', ARGV[2])
if gone == 0 then
  gone = redis.call('XTRIM', stream, 'MINID', '=', keep)
end
return gone
