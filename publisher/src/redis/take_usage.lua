-- After the guard: takes counts of the oldest hour that has any out of its hash, and makes them the batch that is to be sent,
-- in one step. Where there is a batch already, it is that one.
-- KEYS: lock, batch, names, numbers of batches, hash of an hour without the hour. ARGV: token, first hour, last hour,
-- oldest hour that is reported, most rows, seconds for which a batch and numbers stay.
-- Returns {'taken', requests that are too old, requests of nobody known, batch or ''}, or {'unnamed'} where the names are lost.

-- The id of the next batch of an hour, a UUID (RFC 9562 section 5.5). It is made of what Redis holds alone, so a Redis that fell back
-- to an older state gives counts that came back the id under which they were reported. A salt that is made is another one each time, so
-- one that lost everything gives no id twice.
local function next_id(hour)
  local salt = redis.call('HGET', KEYS[4], 'salt')
  if not salt then
    salt = redis.sha1hex(table.concat({ARGV[1], unpack(redis.call('TIME'))}, ' '))
    redis.call('HSET', KEYS[4], 'salt', salt)
  end
  local number = tonumber(redis.call('HGET', KEYS[4], hour) or '0') + 1
  if number == 1 then
    local hours = redis.call('HGETALL', KEYS[4])
    for at = 1, #hours, 2 do
      if (tonumber(hours[at]) or math.huge) < tonumber(ARGV[2]) then
        redis.call('HDEL', KEYS[4], hours[at])
      end
    end
  end
  redis.call('HSET', KEYS[4], hour, string.format('%.0f', number))
  redis.call('EXPIRE', KEYS[4], ARGV[6])
  local digits = redis.sha1hex(string.format('%s %s %.0f', salt, hour, number))
  local parts = {{1, 8, ''}, {9, 12, ''}, {14, 16, '5'}, {18, 20, '8'}, {21, 32, ''}}
  for at, part in ipairs(parts) do
    parts[at] = part[3] .. string.sub(digits, part[1], part[2])
  end
  return table.concat(parts, '-')
end

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
  local oldest, most = tonumber(ARGV[4]), tonumber(ARGV[5])
  for hour = tonumber(ARGV[2]), tonumber(ARGV[3]) do
    local key = KEYS[5] .. string.format('%.0f', hour)
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
        local named = string.format('%.0f', hour)
        batch = next_id(named) .. ' ' .. named .. '\n' .. table.concat(rows, '\n')
        redis.call('SET', KEYS[2], batch, 'EX', ARGV[6])
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
