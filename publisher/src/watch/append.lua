-- After the guard: appends entries, if stream and manifest are as this publisher left them.
-- KEYS: lock, manifest, changes. ARGV: token, how the manifest begins, newest id of the stream ('' none),
-- its length, id that the first entry names as the one before it, fencing number, then kind and content of each entry.
-- Returns {'written', id of the last entry, seconds, microseconds}, or why nothing was written: {'flushed'} without a
-- manifest, {'replaced'} with another one, {'changed', newest id, length} when the stream is not as expected,
-- {'refused'} when it takes no entry any more.
local manifest = redis.call('GET', KEYS[2])
if not manifest then
  return {'flushed'}
end
if string.sub(manifest, 1, #ARGV[2]) ~= ARGV[2] then
  return {'replaced'}
end
local newest = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
newest = newest and newest[1] or ''
local length = string.format('%.0f', redis.call('XLEN', KEYS[3]))
if newest ~= ARGV[3] or length ~= ARGV[4] then
  return {'changed', newest, length}
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local previous = ARGV[5]
local millis, sequence = string.match(previous, '^(%d+)%-(%d+)$')
millis, sequence = tonumber(millis), tonumber(sequence)
for entry = 7, #ARGV, 2 do
  -- Ids go up even when the clock goes back.
  if now > millis then
    millis, sequence = now, 0
  else
    sequence = sequence + 1
  end
  local id = string.format('%.0f-%.0f', millis, sequence)
  local reply = redis.pcall('XADD', KEYS[3], id, 'p', previous, 'f', ARGV[6], 'k', ARGV[entry], 'v', ARGV[entry + 1])
  if type(reply) == 'table' and reply.err then
    -- A higher id was there once, and was removed.
    if string.find(reply.err, 'smaller', 1, true) then
      return {'refused'}
    end
    return reply
  end
  previous = id
end
return {'written', previous, time[1], time[2]}
