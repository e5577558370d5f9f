-- Trims a stream, but never an entry that a consumer group has not acknowledged. It trims entries older than an age by
-- the server's clock or, to make room, the oldest entries of any age. Without a consumer group nothing is acknowledged,
-- and only age counts.
-- KEYS: the stream. ARGV: the age in ms, or -1 to make room; the approximate most entries to trim; the least wanted, if
-- so many may go; an id known to be older than the age, or an empty text; the arguments of `ignoring`.
-- Answers the number of trimmed entries, the last id if it is ahead of the clock (or an empty text), and the groups
-- that need the first entry.

-- An id this many ms ahead of the clock says nothing about its entry's age.
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
    -- These entries would never reach the age, so being acknowledged is enough.
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
  -- Whole nodes first and a bounded number, so that a large backlog never blocks the server. Then the rest exactly:
  -- less than a node, unless `stream-node-max-entries` is above the limit.
  gone = redis.call('XTRIM', stream, 'MINID', '~', keep, 'LIMIT', limit)
  if gone < wanted then
    gone = gone + redis.call('XTRIM', stream, 'MINID', '=', keep)
  end
end
return {gone, is_ahead and last or '', holders}
