-- After the guard. KEYS: lock, document. ARGV: token, field of the version, version, field of the text, text.
-- Returns {'written'}, or {'refused', why}: a document that cannot be written holds nothing else up.
local reply = redis.pcall('HSET', KEYS[2], ARGV[2], ARGV[3], ARGV[4], ARGV[5])
if type(reply) == 'table' and reply.err then
  return {'refused', reply.err}
end
return {'written'}
