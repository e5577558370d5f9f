-- Ends a claim if it is this owner's. KEYS: seen, claim. ARGV: owner.
local held = redis.call('GET', KEYS[2])
if held and string.sub(held, 1, 16) == ARGV[1] then return redis.call('DEL', KEYS[2]) end
return 0
