-- Asks whether claims would be taken, and changes nothing: each command of claim.lua, commit.lua and release.lua, so taken that
-- it comes to nothing. KEYS: a seen key and a claim key that nobody uses. Answers the command that was refused and why, if one was.
local seen, claim = KEYS[1], KEYS[2]

-- Only where it is set already, and nothing sets it.
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
