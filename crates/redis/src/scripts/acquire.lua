-- KEYS: leases. ARGV: duration in milliseconds, then a token for each.
-- Answers for each -1 if it was granted, or for how long another holds it; the
-- holder is told that somebody waits.
local answers = {}
for index, key in ipairs(KEYS) do
  local token = ARGV[index + 1]
  local held = redis.call('GET', key)
  local answer = -1
  if not held or held == 'w' then
    redis.call('SET', key, token .. (held or ''), 'PX', ARGV[1])
  elseif held ~= token and held ~= token .. 'w' then
    answer = redis.call('PTTL', key)
    if answer < 0 then
      answer = tonumber(ARGV[1])
      redis.call('PEXPIRE', key, ARGV[1])
    end
    if string.sub(held, -1) ~= 'w' then
      redis.call('SET', key, held .. 'w', 'PX', math.max(answer, 1))
    end
  end
  answers[index] = answer
end
return answers
