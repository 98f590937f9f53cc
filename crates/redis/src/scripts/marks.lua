
-- Raises watermarks; a lower one changes nothing. A few that no entry can fall
-- under any more go each time.
local function raise(marks, times, members, version, retention)
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  for _, member in ipairs(members) do
    local held = redis.call('ZSCORE', marks, member)
    if not held or tonumber(held) < version then
      redis.call('ZADD', marks, decimal(version), member)
      redis.call('ZADD', times, decimal(now), member)
    end
  end
  local old = redis.call('ZRANGEBYSCORE', times, '-inf', '(' .. decimal(now - retention),
    'LIMIT', 0, #members + 16)
  for _, member in ipairs(old) do
    redis.call('ZREM', marks, member)
    redis.call('ZREM', times, member)
  end
end
