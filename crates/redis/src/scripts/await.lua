-- KEYS: a lease. ARGV: for how long somebody waits, in milliseconds. Whoever holds
-- it, or is granted it meanwhile, is told that somebody waits.
local held = redis.call('GET', KEYS[1])
if not held then
  redis.call('SET', KEYS[1], 'w', 'PX', ARGV[1])
  return 1
end
local left = redis.call('PTTL', KEYS[1])
if held == 'w' then
  if left < tonumber(ARGV[1]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
  end
elseif string.sub(held, -1) ~= 'w' then
  redis.call('SET', KEYS[1], held .. 'w', 'PX', math.max(left, 1))
end
return 1
