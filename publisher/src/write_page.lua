-- After the guard. KEYS: lock, page. ARGV: token, milliseconds, content.
redis.call('SET', KEYS[2], ARGV[3])
return {'written'}
