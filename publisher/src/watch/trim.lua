-- After the guard: removes what is older than anybody needs.
-- KEYS: lock, changes. ARGV: token, oldest id that stays. Returns {'trimmed', number of entries removed}.
return {'trimmed', tostring(redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[2]))}
