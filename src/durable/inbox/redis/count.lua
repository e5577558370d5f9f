-- Counts the entries of a range of a stream, one page at a time, and changes nothing.
-- KEYS: the stream. ARGV: the ends of the range, the most entries to count. Answers the number of entries, the last
-- one's id (or an empty text), and their bytes.
local page = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])
local bytes = 0
for _, entry in ipairs(page) do
  for _, text in ipairs(entry[2]) do
    bytes = bytes + #text
  end
end
return {#page, #page > 0 and page[#page][1] or '', bytes}
