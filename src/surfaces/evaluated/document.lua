local v=redis.call('HGET',KEYS[1],'version')
if not v then return {'none','',''} end
if v==ARGV[1] then return {'same',v,''} end
local t=redis.call('HGET',KEYS[1],'text')
if not t then return {'none','',''} end
if #t>tonumber(ARGV[2]) then return {'long',v,''} end
return {'full',v,t}
