local function tag(v)
 if type(v)~='string' then return '' end
 if v:byte()==128 then
  if v:byte(-1)~=46 then return '' end
  local i,n=3,nil
  if v:byte(3)==149 then i=12 end
  local k=v:byte(i)
  if k==140 then n=v:byte(i+1) i=i+2
  elseif k==88 and #v>i+4 then
   local a,b,c,d=v:byte(i+1,i+4)
   n=a+b*256+c*65536+d*16777216 i=i+5
  end
  if not n or #v<i+n then return '' end
  v=v:sub(i,i+n-1)
 end
 if #v>50 or not v:find('^[%w._-]+$') then return '' end
 return v
end
