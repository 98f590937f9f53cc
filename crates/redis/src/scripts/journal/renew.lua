-- KEYS: head, nodes, news. ARGV: name, who, for how many microseconds, how many lanes,
-- then a lane and an epoch for each claim.
-- Answers how many nodes live, and for each lane: who holds it ('nobody', 'here',
-- 'elsewhere'), epoch, trimmed, last, up to where it is to hurry.
local term, refused = enter(ARGV[1])
if refused then
  return refused
end
local now = now_micros()
local ends = decimal(now + tonumber(ARGV[3]))
if redis.call('ZADD', KEYS[2], ends, ARGV[2]) == 1 then
  tell(KEYS[3])
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', decimal(now))
for index = 5, #ARGV, 2 do
  local lane = ARGV[index]
  if redis.call('HGET', KEYS[1], 'holder:' .. lane) == ARGV[2]
    and number('epoch:' .. lane) == tonumber(ARGV[index + 1]) then
    redis.call('HSET', KEYS[1], 'until:' .. lane, ends)
  end
end
local lanes = {}
for lane = 0, tonumber(ARGV[4]) - 1 do
  local held = redis.call('HMGET', KEYS[1], 'holder:' .. lane, 'until:' .. lane,
    'epoch:' .. lane, 'trimmed:' .. lane, 'last:' .. lane, 'hurry:' .. lane)
  local holder = 'nobody'
  if held[1] and tonumber(held[2]) > now then
    holder = held[1] == ARGV[2] and 'here' or 'elsewhere'
  end
  lanes[lane + 1] = { holder, held[3] or '0', held[4] or '0', held[5] or '0', held[6] or '0' }
end
return done(term, decimal(redis.call('ZCARD', KEYS[2])), lanes)
