-- Before every script that writes: goes on only for the holder of the lock, and renews it.
-- KEYS[1]: lock. ARGV: token, milliseconds for which the lock is renewed. Returns {'lost'} to all others.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {'lost'}
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
