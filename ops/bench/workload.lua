-- The requests that wrk sends, and its report. Arguments: the workload, and the largest id.

local REQUESTS = 200000 -- made in advance and sent in a cycle, so that wrk takes less of the CPU

local requests = {}
local sent = 0

function init(arguments)
  local workload, largest = arguments[1], tonumber(arguments[2])
  math.randomseed(os.time()) -- other ids in each turn, so that no turn finds its rows cached by the turn before
  for number = 1, REQUESTS do
    if workload == "get" then
      requests[number] = wrk.format("GET", "/get/" .. math.random(1, largest))
    elseif workload == "add" then
      local money = string.format("%.2f", math.random(-99999, 99999) / 100)
      requests[number] = wrk.format("POST", "/add?name=Client+" .. math.random(1, 1e9) .. "&money=" .. money)
    else
      requests[number] = wrk.format("GET", "/" .. workload)
    end
  end
end

function request()
  sent = sent % REQUESTS + 1
  return requests[sent]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %f, "errors": %d, "p50_ms": %f, "p99_ms": %f, "p999_ms": %f}\n',
    summary.requests,
    summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status,
    latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3,
    latency:percentile(99.9) / 1e3
  ))
end
