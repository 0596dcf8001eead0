-- After the guard: the lock is ours.
redis.call('DEL', KEYS[1])
return {'released'}
