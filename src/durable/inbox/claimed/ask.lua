-- Asks whether claims would be accepted, and changes nothing. It runs each command of claim.lua, commit.lua and
-- release.lua in a form without effect. KEYS: an unused seen key and an unused claim key. Answers the refused command
-- and the reason, or nothing.
local seen, claim = KEYS[1], KEYS[2]

-- XX sets only an existing key, and these keys never exist.
local commands = {
  {'TIME'},
  {'GET', seen},
  {'GET', claim},
  {'SET', seen, '', 'XX', 'PX', 1},
  {'SET', claim, '', 'XX', 'PX', 1},
  {'DEL', claim},
}

for _, command in ipairs(commands) do
  local reply = redis.pcall(unpack(command))
  if type(reply) == 'table' and reply.err then
    return {command[1], reply.err}
  end
end

return {}
