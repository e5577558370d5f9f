-- Counts the pending entries of a group that still exist, one page at a time, and changes nothing.
-- KEYS: the stream. ARGV: the group, the ends of the range, the most entries to count, the greatest deleted id. Answers
-- the number of pending ids, the last one (or an empty text), and how many of them still exist.
local stream, deleted = KEYS[1], ARGV[5]
local page = redis.call('XPENDING', stream, ARGV[1], ARGV[2], ARGV[3], ARGV[4])
local there = 0
for _, entry in ipairs(page) do
  if earlier(deleted, entry[1]) or #redis.call('XRANGE', stream, entry[1], entry[1]) > 0 then
    there = there + 1
  end
end
return {#page, #page > 0 and page[#page][1] or '', there}
