local n=redis.call('TIME')
local r=redis.call('ZRANGEBYSCORE',KEYS[1],'('..n[1]..'.'..('%06d'):format(n[2]),'+inf','WITHSCORES','LIMIT',0,tonumber(ARGV[1]))
local o={}
for i=1,#r,2 do
 if #r[i]<=200 then o[#o+1]=#r[i]..':'..r[i]..r[i+1]..'\n' end
end
return {'quota',n[1],n[2],table.concat(o)}
