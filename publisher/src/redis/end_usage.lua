-- After the guard: forgets a batch. KEYS: lock, batch. ARGV: token, id. Returns {'ended'}, or {'gone'} where another one is there
-- or none.
local function act()
  local batch = redis.call('GET', KEYS[2]) or ''
  if string.sub(batch, 1, #ARGV[2] + 1) ~= ARGV[2] .. ' ' then
    return {'gone'}
  end
  redis.call('DEL', KEYS[2])
  return {'ended'}
end
