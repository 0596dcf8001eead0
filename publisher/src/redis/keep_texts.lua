-- After the guard. KEYS: lock, hash. ARGV: token, how many fields go, those, then fields that are set, each with its text. A command for
-- each of both: what is refused changes nothing. With fields that go, only the list of those that stay is set, which becomes shorter.
-- Returns {'written'}, {'refused', why}: a text that cannot be kept holds nothing else up, or {'gone'} where only the list is set and
-- the hash is not there.
local removed = tonumber(ARGV[2])
if #ARGV == removed + 4 and redis.call('EXISTS', KEYS[2]) == 0 then
  return {'gone'}
end
local reply = removed > 0 and redis.pcall('HDEL', KEYS[2], unpack(ARGV, 3, removed + 2))
if type(reply) ~= 'table' then
  reply = redis.pcall('HSET', KEYS[2], unpack(ARGV, removed + 3))
end
if type(reply) == 'table' and reply.err then
  return {'refused', reply.err}
end
return {'written'}
