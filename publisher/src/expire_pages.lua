-- Lets the pages of a generation expire. Pages are written in order, so the first that is absent is the end.
-- KEYS: lock, page key without its number. ARGV: token, milliseconds, first page, seconds, most pages at once.
-- Returns {'end'} or {'more'}.
for page = ARGV[3], ARGV[3] + ARGV[5] - 1 do
  if redis.call('EXPIRE', KEYS[2] .. string.format('%.0f', page), ARGV[4]) == 0 then
    return {'end'}
  end
end
return {'more'}
