-- After the guard. KEYS: lock, hash. ARGV: token, `alone` where no other fields stay, then fields, each with its text.
-- Returns {'written'}, or {'refused', why}: a text that cannot be kept holds nothing else up.
if ARGV[2] == 'alone' then
  redis.call('UNLINK', KEYS[2])
end
for at = 3, #ARGV, 2 do
  local reply = redis.pcall('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
  if type(reply) == 'table' and reply.err then
    return {'refused', reply.err}
  end
end
return {'written'}
