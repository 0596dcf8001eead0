-- Takes the next generation and the time at once, so that a higher generation never has an earlier time.
-- KEYS: lock, counter. ARGV: token, generation of the current manifest, below which the counter must
-- not fall when it was lost. Returns generation, seconds, microseconds.
local counter = tonumber(redis.call('GET', KEYS[2]) or '0') or 0
if counter < tonumber(ARGV[2]) then
  redis.call('SET', KEYS[2], ARGV[2])
end
redis.call('INCR', KEYS[2])
local time = redis.call('TIME')
-- Read as text: a Lua number would round it.
return {redis.call('GET', KEYS[2]), time[1], time[2]}
