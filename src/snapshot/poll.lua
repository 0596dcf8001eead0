local t=redis.call('TIME')
local m,d=redis.call('GET',KEYS[1]) or '',''
if m~='' then
 d=redis.sha1hex(m)
 if d==ARGV[1] then m='' end
end
local o={'poll',t[1],t[2],d,m,''}
if ARGV[2]~='' then
 local l=redis.call('XREVRANGE',KEYS[2],'+','-','COUNT',1)
 if l[1] then o[6]=l[1][1] end
 for _,e in ipairs(redis.call('XRANGE',KEYS[2],'('..ARGV[2],'+','COUNT',ARGV[3])) do
  o[#o+1]=e[1]
  for i=2,8,2 do o[#o+1]=e[2][i] or '' end
 end
end
return o
