-- What wrk sends: HOST PATH [TOKENS FIRST COUNT]. With a file of tokens, requests walk through COUNT of its lines from
-- line FIRST on and begin again at the file's end. Prints one line that starts with RESULT.

local host, path
local tokens, requests, at = {}, {}, 0

function init(args)
  host, path = args[1], args[2]
  if not args[3] then return end
  local all = {}
  for token in io.lines(args[3]) do all[#all + 1] = token end
  local first, count = tonumber(args[4]), tonumber(args[5])
  for index = first, first + count - 1 do tokens[#tokens + 1] = all[index % #all + 1] end
end

-- Made when it is first sent: tens of thousands of long texts that are alike take LuaJIT half a minute now and then.
function request()
  at = at % math.max(#tokens, 1) + 1
  if not requests[at] then
    local headers = { ["Host"] = host }
    if tokens[at] then headers["Authorization"] = "Bearer " .. tokens[at] end
    requests[at] = wrk.format("GET", path, headers)
  end
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  local lost = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration, errors.status, lost,
    latency:percentile(50), latency:percentile(99)))
end
