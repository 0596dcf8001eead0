-- After the guard. KEYS: lock, those to remove.
redis.call('UNLINK', unpack(KEYS, 2))
return {'removed'}
