-- After a script that defines `act`: what Redis refuses is told, and fails nothing else. Returns {'refused', why}.
local done, reply = pcall(act)
if done then
  return reply
end
return {'refused', type(reply) == 'table' and reply.err or tostring(reply)}
