-- After the guard: says whose requests are counted under which number. A number that becomes another key's is not reported until
-- nothing that was counted for the one before is reported any more. A number that nobody has for long enough is forgotten.
-- KEYS: lock, names. ARGV: token, hour, hours for which counts are reported, seconds for which the names stay, then for each
-- tenant its number and the hash of its key. Without tenants: those are forgotten that were not named for twice as long.
-- Each name is `hash since named_at`. Returns {'named'}.
local function act()
  local hour, reported = tonumber(ARGV[2]), tonumber(ARGV[3])
  for at = 5, #ARGV, 2 do
    local before = redis.call('HGET', KEYS[2], ARGV[at]) or ''
    local hash, since = string.match(before, '^(%x+) (%d+) ')
    if not hash then
      since = '0'
    elseif hash ~= ARGV[at + 1] then
      since = string.format('%.0f', hour + reported + 1)
    end
    redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1] .. ' ' .. since .. ' ' .. ARGV[2])
  end
  if #ARGV == 4 then
    -- So that the key is there also where nobody is reported.
    redis.call('HSET', KEYS[2], '-', '- 0 ' .. ARGV[2])
    local names = redis.call('HGETALL', KEYS[2])
    for at = 1, #names, 2 do
      local named_at = tonumber(string.match(names[at + 1], ' (%d+)$') or '0')
      if named_at + 2 * reported < hour then
        redis.call('HDEL', KEYS[2], names[at])
      end
    end
  end
  redis.call('EXPIRE', KEYS[2], ARGV[4])
  return {'named'}
end
