-- Looks up, remembers (SET) and enqueues (XADD) each event of a batch.
-- Redis does not roll back a script, so a step that fails after another is undone here. When XADD fails, nothing is
-- remembered; when SET fails, nothing is enqueued. A SET is undone by another SET, which needs no further right and no
-- memory. The other order would need XDEL to undo an XADD: the user may lack that right, and a consumer may have read
-- the entry by then.
-- Most events are new, so the first SET both looks up and remembers.
-- KEYS: the stream, then each event's seen key. ARGV: window in ms, max_backlog, then six for each event: the body's
-- hash, what to do under a known identity (F report, D drop, C enqueue this conflict form), id, type, source, JSON.
-- Answers a number for each event (script.rs names them), or a text with the reason of a refusal.
local stream, window, room = KEYS[1], ARGV[1], tonumber(ARGV[2])
-- The hash of a body whose bytes are not known. It may be every body.
local unknown = string.rep('\0', 32)
local answers = {}

-- If the key is no stream, new events are refused, and known ones are still recognized.
local length = redis.pcall('XLEN', stream)

-- Only the text, which starts with Redis' error code. 'source' and 'line' of the error would not help the operator.
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
  -- A server without memory refuses SET but still answers GET.
  if kept == nil or refused(kept) then
    known = redis.pcall('GET', seen)
  end

  local flag
  if type(known) == 'string' then
    -- Records of 33 bytes: a body's hash, and a letter for how it was taken.
    for from = 1, #known, 33 do
      local other = string.sub(known, from, from + 31)
      if other == body or other == unknown or body == unknown then
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
          -- An expiry in the past deletes the key at once.
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
