-- Ends a claim if it is this owner's. KEYS: seen, claim. ARGV: owner, body, 'keep' if an earlier try may have put the
-- body in the queue. With 'keep' only the lease ends.
local held = redis.call('GET', KEYS[2])
if not held or string.sub(held, 1, 16) ~= ARGV[1] then return 0 end
if ARGV[3] ~= 'keep' then return redis.call('DEL', KEYS[2]) end
local naming = string.match(string.sub(held, 50), '%.%d$') or ''
redis.call('SET', KEYS[2], string.sub(held, 1, 49) .. '1' .. naming, 'KEEPTTL')
return 1
