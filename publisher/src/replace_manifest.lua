-- Replaces the manifest unless that would roll back, and lets the pages of the replaced one expire.
-- KEYS: manifest. ARGV: new manifest, its generation, its stream id, seconds until the old pages expire.
-- Returns {'published', problem with the old pages or ''} or {'overtaken', generation, stream id}.
local function parse(text)
  local decoded, manifest = pcall(cjson.decode, text)
  if decoded and type(manifest) == 'table' and type(manifest.generation) == 'number' then
    return manifest
  end
end

local function is_at_least(id, other)
  local millis, sequence = string.match(tostring(id), '^(%d+)%-(%d+)$')
  if not millis then
    return false
  end
  local other_millis, other_sequence = string.match(other, '^(%d+)%-(%d+)$')
  millis, other_millis = tonumber(millis), tonumber(other_millis)
  if millis ~= other_millis then
    return millis > other_millis
  end
  return tonumber(sequence) >= tonumber(other_sequence)
end

-- A manifest that cannot be read has no place in the order: it is replaced.
local current = parse(redis.call('GET', KEYS[1]) or '')
local generation = current and string.format('%.0f', current.generation)
if current and (current.generation >= tonumber(ARGV[2]) or is_at_least(current.stream_id, ARGV[3])) then
  return {'overtaken', generation, tostring(current.stream_id)}
end

redis.call('SET', KEYS[1], ARGV[1])

-- From here on nothing may fail the script: the snapshot is published.
if current and type(current.pages) == 'table' then
  for page = 0, #current.pages - 1 do
    local reply = redis.pcall('EXPIRE', KEYS[1] .. ':' .. generation .. ':' .. page, ARGV[4])
    if type(reply) == 'table' and reply.err then
      return {'published', reply.err}
    end
  end
end
return {'published', ''}
