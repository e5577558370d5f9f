-- Trims a stream, never past an entry that a consumer group has not acknowledged: entries older than an age by the server's own
-- clock, or, to make room, the oldest, however young. Without a consumer group nothing is acknowledged, and age alone counts.
-- KEYS: the stream. ARGV: the age in ms, or -1 to make room; how many entries go at most, about; how many are wanted at least,
-- where there are so many; an id of which it is known otherwise that it is older than the age, or nothing; `ignoring`.
-- Answers how many went, the last id if it is ahead of the clock, else nothing, and the groups that need the first entry.

-- So far ahead of the clock an id says nothing of its entry's age.
local AHEAD = 60000

local stream, age, limit, wanted, aged = KEYS[1], tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4]
if redis.call('EXISTS', stream) == 0 then
  return {0, '', {}}
end
local of = state(stream)
local last = of['last-generated-id']
local function id_at(ms)
  return string.format('%.0f', math.max(ms, 0)) .. '-0'
end
local ahead = id_at(clock() + AHEAD)
local is_ahead = not earlier(last, ahead)
if not of.first then
  return {0, is_ahead and last or '', {}}
end

local keep, holders, count = held(stream, of, ignoring(5))
if age < 0 then
  if count == 0 then
    keep = of.first
  end
else
  local young = id_at(clock() - age)
  if is_ahead and count > 0 and earlier(ahead, keep) then
    -- These would never be old enough: that they are acknowledged has to do.
    young = keep
  elseif is_ahead and aged ~= '' and earlier(young, after(aged)) then
    young = after(aged)
  end
  if earlier(young, keep) then
    keep = young
  end
end

local gone = 0
if earlier(of.first, keep) then
  -- Whole nodes first, a bounded number at a time, so that a great backlog never stops the server; then the rest exactly, which
  -- is less than a node, unless `stream-node-max-entries` was set above the limit.
  gone = redis.call('XTRIM', stream, 'MINID', '~', keep, 'LIMIT', limit)
  if gone < wanted then
    gone = gone + redis.call('XTRIM', stream, 'MINID', '=', keep)
  end
end
return {gone, is_ahead and last or '', holders}
