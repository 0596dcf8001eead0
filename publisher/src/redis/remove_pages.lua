-- After the guard. KEYS: lock, pages.
redis.call('UNLINK', unpack(KEYS, 2))
return {'removed'}
