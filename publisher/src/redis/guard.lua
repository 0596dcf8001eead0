-- Before every script that writes: goes on only for the holder of the lock. It writes nothing itself, because a script
-- that wrote once may write on beyond maxmemory.
-- KEYS[1]: lock. ARGV[1]: token. Returns {'lost'} to all others.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {'lost'}
end
