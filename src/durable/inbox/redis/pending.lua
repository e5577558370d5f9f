-- Counts the pending entries of a group that are still in the stream, a page at a time, and changes nothing.
-- KEYS: the stream. ARGV: the group, the ends of the range, how many at most, the greatest id that was deleted. Answers how many
-- are pending, the last one's id (or nothing), and how many of them are there.
local stream, deleted = KEYS[1], ARGV[5]
local page = redis.call('XPENDING', stream, ARGV[1], ARGV[2], ARGV[3], ARGV[4])
local there = 0
for _, entry in ipairs(page) do
  if earlier(deleted, entry[1]) or #redis.call('XRANGE', stream, entry[1], entry[1]) > 0 then
    there = there + 1
  end
end
return {#page, #page > 0 and page[#page][1] or '', there}
