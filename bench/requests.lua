-- Sends the requests of a file in turn. Each is a line: method, path, body and header fields, separated by tabs. Where a
-- request says "{sixteen_digits}" it gets some that no request has had before.
local requests, unique, last, number = {}, {}, 0, os.time() * 1e6

function init(args)
  for line in io.lines(args[1]) do
    local fields, headers = {}, {}
    for field in (line .. "\t"):gmatch("(.-)\t") do
      fields[#fields + 1] = field
    end
    for i = 4, #fields do
      local name, value = fields[i]:match("^(.-): (.*)$")
      headers[name] = value
    end
    local body = fields[3] ~= "" and fields[3] or nil
    requests[#requests + 1] = wrk.format(fields[1], fields[2], headers, body)
    unique[#requests] = line:find("{sixteen_digits}", 1, true) ~= nil
  end
end

function request()
  last = last % #requests + 1
  if not unique[last] then
    return requests[last]
  end
  number = number + 1
  return (requests[last]:gsub("{sixteen_digits}", string.format("%016d", number)))
end
