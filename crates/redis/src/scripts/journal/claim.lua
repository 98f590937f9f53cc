-- KEYS: head, news. ARGV: name, who claims, lane, for how many microseconds.
-- Answers epoch, trimmed, last; or for how long another one holds it.
local term, refused = enter(ARGV[1])
if refused then
  return refused
end
local lane = ARGV[3]
local now = now_micros()
local held = redis.call('HMGET', KEYS[1], 'holder:' .. lane, 'until:' .. lane)
if held[1] and held[1] ~= ARGV[2] and tonumber(held[2]) > now then
  return { 'held', decimal(tonumber(held[2]) - now) }
end
local epoch = add('epoch:' .. lane, 1)
redis.call('HSET', KEYS[1], 'holder:' .. lane, ARGV[2],
  'until:' .. lane, decimal(now + tonumber(ARGV[4])))
tell(KEYS[2])
return done(term, decimal(epoch), decimal(number('trimmed:' .. lane)),
  decimal(number('last:' .. lane)))
