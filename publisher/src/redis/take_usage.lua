-- After the guard: takes counts of the oldest hour that has any out of its hash, and makes them the batch that is to be sent,
-- in one step. Where there is a batch already, it is that one.
-- KEYS: lock, batch, names, hash of an hour without the hour. ARGV: token, id of a new batch, first hour, last hour, oldest hour
-- that is reported, most rows, seconds for which a batch stays.
-- Returns {'taken', requests that are too old, requests of nobody known, batch or ''}, or {'unnamed'} where the names are lost.
local function act()
  local old, unknown = 0, 0
  local function reply(batch)
    return {'taken', string.format('%.0f', old), string.format('%.0f', unknown), batch}
  end
  local batch = redis.call('GET', KEYS[2])
  if batch then
    return reply(batch)
  end
  if redis.call('EXISTS', KEYS[3]) == 0 then
    return {'unnamed'}
  end
  local oldest, most = tonumber(ARGV[5]), tonumber(ARGV[6])
  for hour = tonumber(ARGV[3]), tonumber(ARGV[4]) do
    local key = KEYS[4] .. string.format('%.0f', hour)
    -- What stands there may be anything.
    local counts = redis.pcall('HGETALL', key)
    if not counts.err and #counts > 0 then
      -- Whoever may not remove counts must not send them. This removes none.
      redis.call('HDEL', key, '')
      local rows, taken = {}, {}
      for at = 1, #counts, 2 do
        local tenant, resource = string.match(counts[at], '^(%d+):(%d%d?%d?)$')
        if resource and tonumber(resource) > 255 then
          tenant = nil
        end
        local count = string.match(counts[at + 1], '^%d+$') or '0'
        local hash, since
        if tenant and hour >= oldest then
          hash, since = string.match(redis.call('HGET', KEYS[3], tenant) or '', '^(%x+) (%d+) ')
        end
        local is_reported = hash and hour >= tonumber(since)
        if not is_reported or #rows < most then
          taken[#taken + 1] = counts[at]
          if is_reported then
            rows[#rows + 1] = hash .. ' ' .. resource .. ' ' .. count
          elseif hour < oldest then
            old = old + tonumber(count)
          else
            unknown = unknown + tonumber(count)
          end
        end
      end
      if #rows > 0 then
        batch = ARGV[2] .. ' ' .. string.format('%.0f', hour) .. '\n' .. table.concat(rows, '\n')
        redis.call('SET', KEYS[2], batch, 'EX', ARGV[7])
      end
      for at = 1, #taken, 1000 do
        redis.call('HDEL', key, unpack(taken, at, math.min(at + 999, #taken)))
      end
      if batch then
        return reply(batch)
      end
    end
  end
  return reply('')
end
