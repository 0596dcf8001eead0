-- After the guard: removes what is older than anybody needs.
-- KEYS: lock, changes. ARGV: token, milliseconds, oldest id that stays. Returns {'trimmed', number of entries removed}.
return {'trimmed', tostring(redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[3]))}
