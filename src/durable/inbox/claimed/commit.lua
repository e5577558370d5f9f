-- After the broker's confirm: remembers the body and ends the owner's claim. Does nothing while another owner's claim
-- lasts.
-- KEYS: seen, claim. ARGV: owner, body, 'F' or 'C', window in ms. claim.lua describes the values of the keys.
local seen, claim = KEYS[1], KEYS[2]
local owner, body, place, window = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('GET', claim)
local ours = held and string.sub(held, 1, 16) == owner
if held and not ours and tonumber(string.sub(held, 50)) > now then return 0 end

local known = redis.call('GET', seen) or ''
local flag, before, after, covered = nil, known, '', false
local unknown = string.rep('\0', 32)
for from = 1, #known, 33 do
  local other, letter = string.sub(known, from, from + 31), string.sub(known, from + 32, from + 32)
  -- One of the two may be any body, and the other is in the queue.
  covered = covered or (other == unknown or body == unknown) and letter == 'F'
  if other == body then
    flag = letter
    before, after = string.sub(known, 1, from - 1), string.sub(known, from + 33)
  end
end

-- Remembers first and deletes then, because Redis does not roll back a script that fails in between.
if not covered and (not flag or flag == 'P') then
  redis.call('SET', seen, before .. body .. place .. after, 'PX', window)
end
if ours then redis.call('DEL', claim) end
return 1
