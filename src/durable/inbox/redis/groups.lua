-- Functions about a stream and its consumer groups. This text precedes each of the other scripts.

-- An id is two 64-bit numbers, which a Lua number cannot hold. So they are compared as digits.
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

local function named(fields)
  local by_name = {}
  for i = 1, #fields, 2 do
    by_name[fields[i]] = fields[i + 1]
  end
  return by_name
end

-- The server's clock in milliseconds.
local function clock()
  local now = redis.call('TIME')
  return tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
end

-- The fields of XINFO STREAM, and the first id if there is an entry.
local function state(stream)
  local known = named(redis.call('XINFO', 'STREAM', stream))
  -- Redis before 7.0 does not report it. Then each pending entry is looked up.
  known['max-deleted-entry-id'] = known['max-deleted-entry-id'] or known['last-generated-id']
  known.first = known['first-entry'] and known['first-entry'][1]
  return known
end

local function groups(stream)
  local all = {}
  for _, fields in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    table.insert(all, named(fields))
  end
  return all
end

-- The time in ms since any of its consumers was active; nil without consumers.
local function idle(stream, group)
  local least
  for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group.name)) do
    local since = named(fields).idle
    if not least or since < least then
      least = since
    end
  end
  return least
end

-- The first entry that the group has read, has not acknowledged, and that still exists. Redis keeps the ids of deleted
-- entries in a group's pending list. Ids before the stream's first entry are skipped at once, and up to a thousand
-- others are looked up. If there are more, the rest counts as pending.
local function pending(stream, of, group)
  if group.pending == 0 or not of.first then
    return nil
  end
  local deleted = of['max-deleted-entry-id']
  local from, last = of.first, nil
  for _ = 1, 10 do
    local page = redis.call('XPENDING', stream, group.name, from, '+', 100)
    for _, entry in ipairs(page) do
      last = entry[1]
      if earlier(deleted, last) or #redis.call('XRANGE', stream, last, last) > 0 then
        return last
      end
    end
    if #page < 100 then
      return nil
    end
    from = '(' .. last
  end
  return after(last)
end

-- The first id that a group needs; nil if it has acknowledged everything.
local function needed(stream, of, group)
  local waits = pending(stream, of, group)
  local read = group['last-delivered-id']
  if of.first and earlier(read, of['last-generated-id']) then
    local unread = after(read)
    if not waits or earlier(unread, waits) then
      return unread
    end
  end
  return waits
end

-- About a stream: the first id that some group needs (or else the id after the last), the names of at most eight groups
-- that need the first entry, and the number of groups. `limit`: a group that was idle for this many ms needs nothing; 0
-- turns this off. `still`: for groups without consumers that stood still this long, the last id that they had read.
local function held(stream, of, limit, still)
  local first, holders = after(of['last-generated-id']), {}
  local all = groups(stream)
  for _, group in ipairs(all) do
    local from = needed(stream, of, group)
    if from and limit > 0 then
      local since = idle(stream, group)
      if since and since >= limit or not since and still[group.name] == group['last-delivered-id'] then
        from = nil
      end
    end
    if from then
      if earlier(from, first) then
        first = from
      end
      if #holders < 8 and not earlier(of.first, from) then
        table.insert(holders, group.name)
      end
    end
  end
  return first, holders, #all
end

-- The arguments of `held`, from ARGV[at] on: the limit, then pairs of a group and an id.
local function ignoring(at)
  local still = {}
  for i = at + 1, #ARGV, 2 do
    still[ARGV[i]] = ARGV[i + 1]
  end
  return tonumber(ARGV[at]), still
end

