-- Takes the next generation and the time at once, so that a higher generation never has an earlier time.
-- KEYS: counter. ARGV: generation of the current manifest, below which the counter must not fall when it
-- was lost. Returns generation, seconds, microseconds.
local counter = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
if counter < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1])
end
redis.call('INCR', KEYS[1])
local time = redis.call('TIME')
-- Read as text: a Lua number would round it.
return {redis.call('GET', KEYS[1]), time[1], time[2]}
