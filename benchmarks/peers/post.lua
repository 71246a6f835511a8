-- One booking a request, from a file of "account slot patient" lines; tokens by account number.
-- wrk -s post.lua URL -- tokens requests [delay_ms]
local requests, tokens, at, pause = {}, {}, 0, 0

function init(args)
   for line in io.lines(args[1]) do tokens[#tokens + 1] = line end
   for line in io.lines(args[2]) do requests[#requests + 1] = line end
   pause = tonumber(args[3] or "0")
   run = args[4] or "r"
   math.randomseed(os.time())
end

function delay()
   if pause == 0 then return 0 end
   return math.floor(pause * (0.5 + math.random()))
end

function request()
   at = at % #requests + 1
   local account, slot, patient = requests[at]:match("(%d+) (%S+) (%S+)")
   return wrk.format("POST", "/api/v1/appointments", {
      ["Authorization"] = "Bearer " .. tokens[account + 1],
      ["Idempotency-Key"] = run .. at,
      ["Content-Type"] = "application/json",
   }, '{"slot_id":"' .. slot .. '","patient_id":"' .. patient .. '"}')
end


function done(summary, latency, all)
   io.write(string.format(
      'JSON{"requests":%d,"microseconds":%d,"not_2xx":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,"p50_ms":%.2f,"p95_ms":%.2f,"p99_ms":%.2f,"max_ms":%.2f}\n',
      summary.requests, summary.duration, summary.errors.status, summary.errors.connect, summary.errors.read,
      summary.errors.write, summary.errors.timeout, latency:percentile(50) / 1000, latency:percentile(95) / 1000,
      latency:percentile(99) / 1000, latency.max / 1000))
end
