-- Takes the lock unless somebody else holds it. Each taking has a higher fencing number.
-- KEYS: lock, fencing counter. ARGV: token, milliseconds, number below which the counter must not fall when it
-- was lost. Returns {'taken', fencing number} or {'held'}.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return {'held'}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if (tonumber(redis.call('GET', KEYS[2]) or '0') or 0) < tonumber(ARGV[3]) then
  redis.call('SET', KEYS[2], ARGV[3])
end
return {'taken', tostring(redis.call('INCR', KEYS[2]))}
