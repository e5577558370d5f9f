-- Looks, remembers (SET) and enters (XADD) a batch of events, each on its own and in that order. Redis rolls no script back, so
-- a step that fails after another has to be undone here. A SET is undone by another SET: a user who was allowed the first is
-- allowed the second, and it needs no memory. Most events are new, so the first SET looks and remembers in one command. The other order would need XDEL, a right that this user may lack, and a consumer
-- that XREAD serves may have the entry by then. So when XADD fails, nothing is remembered; when SET fails, nothing entered.
-- KEYS: the stream, then each event's seen key. ARGV: window in ms, max_backlog, then six for each event: the body's
-- hash, what to do under a known identity (F tell, D drop, C enter: this is the conflict form), id, type, source, JSON.
-- Answers a number an event (answer.rs names them), or a text saying why it was refused.
local stream, window, room = KEYS[1], ARGV[1], tonumber(ARGV[2])
local answers = {}

-- A stream that is no stream refuses what would enter it; what is known already is still told.
local length = redis.pcall('XLEN', stream)

-- 'source' and 'line' of the error would tell the operator nothing; the text starts with Redis' error code.
local function why(refusal)
  return refusal.err
end

local function refused(reply)
  return type(reply) == 'table' and reply.err
end

local function open()
  return not refused(length) and length < room
end

for i = 1, #KEYS - 1 do
  local seen, at = KEYS[i + 1], 3 + (i - 1) * 6
  local body, mode = ARGV[at], ARGV[at + 1]
  local known, kept
  if open() and mode ~= 'C' then
    known = redis.pcall('SET', seen, body .. 'F', 'PX', window, 'NX', 'GET')
    kept = not known or refused(known) and known
  end
  -- A server that is out of memory refuses SET, and still tells what is known.
  if kept == nil or refused(kept) then
    known = redis.pcall('GET', seen)
  end

  local flag
  if type(known) == 'string' then
    -- Records of 33 bytes: a body's hash, and how it was taken.
    for from = 1, #known, 33 do
      if string.sub(known, from, from + 31) == body then
        flag = string.sub(known, from + 32, from + 32)
        break
      end
    end
  end

  if refused(known) then
    answers[i] = why(known)
  elseif flag == 'F' then
    answers[i] = 2
  elseif flag == 'C' then
    answers[i] = 3
  elseif flag then
    answers[i] = 4
  elseif known and mode == 'F' then
    answers[i] = 5
  elseif known and mode == 'D' then
    local dropped = redis.pcall('SET', seen, known .. body .. 'D', 'PX', window)
    answers[i] = refused(dropped) and why(dropped) or 6
  elseif refused(length) then
    answers[i] = why(length)
  elseif not open() then
    answers[i] = 7
  else
    if not kept then
      kept = redis.pcall('SET', seen, (known or '') .. body .. 'C', 'PX', window)
    end
    if refused(kept) then
      answers[i] = why(kept)
    else
      local entry = redis.pcall('XADD', stream, '*', 'id', ARGV[at + 2], 'type', ARGV[at + 3],
        'source', ARGV[at + 4], 'event', ARGV[at + 5])
      if refused(entry) then
        answers[i] = why(entry)
        if known then
          redis.call('SET', seen, known, 'PX', window)
        else
          -- Long past: it is gone at once.
          redis.call('SET', seen, '', 'PXAT', 1)
        end
      else
        length = length + 1
        answers[i] = 1
      end
    end
  end
end

return answers
