-- After the guard. KEYS: lock, page. ARGV: token, content.
redis.call('SET', KEYS[2], ARGV[2])
return {'written'}
