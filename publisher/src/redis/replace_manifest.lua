-- Replaces the manifest unless that would roll back, and lets the pages of the replaced one expire.
-- KEYS: lock, manifest, changes. ARGV: token, new manifest, its generation, its stream id, its number
-- of pages, seconds until the old pages expire, '1' when no earlier change may follow it.
-- Returns {'published', problem with the old pages or ''}, {'overtaken', generation, stream id}, or {'torn'} when
-- one of its pages is gone already.
local function parse(text)
  local decoded, manifest = pcall(cjson.decode, text)
  if decoded and type(manifest) == 'table' and type(manifest.generation) == 'number' then
    return manifest
  end
end

local function is_after(id, other)
  local millis, sequence = string.match(tostring(id), '^(%d+)%-(%d+)$')
  if not millis then
    return false
  end
  local other_millis, other_sequence = string.match(other, '^(%d+)%-(%d+)$')
  millis, other_millis = tonumber(millis), tonumber(other_millis)
  if millis ~= other_millis then
    return millis > other_millis
  end
  return tonumber(sequence) > tonumber(other_sequence)
end

-- A manifest that cannot be read has no place in the order: it is replaced.
local current = parse(redis.call('GET', KEYS[2]) or '')
local generation = current and string.format('%.0f', current.generation)
if current and (current.generation >= tonumber(ARGV[3]) or is_after(current.stream_id, ARGV[4])) then
  return {'overtaken', generation, tostring(current.stream_id)}
end

for page = 0, ARGV[5] - 1 do
  if redis.call('EXISTS', KEYS[2] .. ':' .. ARGV[3] .. ':' .. string.format('%.0f', page)) == 0 then
    return {'torn'}
  end
end
if ARGV[7] == '1' then
  redis.call('DEL', KEYS[3])
end
redis.call('SET', KEYS[2], ARGV[2])

-- From here on nothing may fail the script: the snapshot is published.
if current and type(current.pages) == 'table' then
  for page = 0, #current.pages - 1 do
    local reply = redis.pcall('EXPIRE', KEYS[2] .. ':' .. generation .. ':' .. page, ARGV[6])
    if type(reply) == 'table' and reply.err then
      return {'published', reply.err}
    end
  end
end
return {'published', ''}
