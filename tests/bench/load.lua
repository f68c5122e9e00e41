-- What wrk sends: HOST PATH [TOKENS FIRST COUNT]. With a file of tokens, requests walk through COUNT of its lines from
-- line FIRST on and begin again at the file's end. Prints one line that starts with RESULT.

local requests, at = {}, 0

function init(args)
  local host, path, file = args[1], args[2], args[3]
  local function add(token)
    local headers = { ["Host"] = host }
    if token then headers["Authorization"] = "Bearer " .. token end
    requests[#requests + 1] = wrk.format("GET", path, headers)
  end
  if not file then return add(nil) end
  local tokens = {}
  for token in io.lines(file) do tokens[#tokens + 1] = token end
  local first, count = tonumber(args[4]), tonumber(args[5])
  for index = first, first + count - 1 do add(tokens[index % #tokens + 1]) end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  local lost = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration, errors.status, lost,
    latency:percentile(50), latency:percentile(99)))
end
