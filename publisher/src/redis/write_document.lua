-- After the guard. KEYS: lock, document. ARGV: token, field of the version, version, field of the text, text.
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3], ARGV[4], ARGV[5])
return {'written'}
