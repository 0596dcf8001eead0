-- Lets the pages of a generation expire. Pages are written in order, so the first that is absent is the end.
-- KEYS: lock, page key without its number. ARGV: token, first page, seconds, most pages at once.
-- Returns {'end'} or {'more'}.
for page = ARGV[2], ARGV[2] + ARGV[4] - 1 do
  if redis.call('EXPIRE', KEYS[2] .. string.format('%.0f', page), ARGV[3]) == 0 then
    return {'end'}
  end
end
return {'more'}
