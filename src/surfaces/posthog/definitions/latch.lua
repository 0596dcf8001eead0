local n=redis.call('TIME')
local now=n[1]*1000+math.floor(n[2]/1000)
local grace,written=tonumber(ARGV[1]),0
local function b36(v)
 local s=''
 repeat
  local r=v%36
  s=('0123456789abcdefghijklmnopqrstuvwxyz'):sub(r+1,r+1)..s
  v=(v-r)/36
 until v<1
 return s
end
for i,key in ipairs(KEYS) do
 local gone,limit=ARGV[3*i-1]=='gone',tonumber(ARGV[3*i])
 local e=tag(redis.pcall('GET',ARGV[3*i+1]))
 local l,old,h=redis.pcall('GET',key),nil,nil
 if type(l)=='string' then
  local t,x,v=l:match('^(%d+):([%da-z]+):(.*)$')
  if t and #t<16 and #x<14 then old,h=tonumber(t),v end
 end
 local t=limit
 if gone and limit>now then
  t=now+grace
  if old and old>now and old<t then t=old end
 elseif old and old>limit then
  t=old
  if not gone then t=math.min(old,math.max(limit,now+grace)) end
 end
 local ttl=math.min(t-now+604800000,5184000000)
 if ttl>0 and (t~=old or (old>now and h~=e)) then
  local v=('%.0f:%s:%s'):format(t,b36(math.floor(t/1000)),e)
  redis.call('SET',key,v,'PX',('%.0f'):format(ttl))
  written=written+1
 end
end
return {'latch',n[1],n[2],tostring(written)}
