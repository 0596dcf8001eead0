local function get(k)
 local v=redis.pcall('GET',k)
 if type(v)~='table' then return v end
 if (v.err or ''):find('^WRONGTYPE') then return false end
 return redis.call('GET',k)
end
local e,s=tag(get(KEYS[2])),''
local l=get(KEYS[3])
if l then
 local t,x,h=l:match('^(%d+):([%da-z]+):(.*)$')
 if t and #t<16 and #x<14 then
  local n=redis.call('TIME')
  if tonumber(t)>n[1]*1000+math.floor(n[2]/1000) then s='-'..t
  elseif h=='' or e=='' or h==e then s=x end
 end
end
local p=e
if s:find('^%w') then p=e..'-'..s end
if e~='' and (ARGV[1]=='*' or ARGV[1]==p) then return {'same',e,'',s} end
local v=redis.call('GET',KEYS[1])
if v then return {'full',e,v,s} end
return {'none',e,'',s}
