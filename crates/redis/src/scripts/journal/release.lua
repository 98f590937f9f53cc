-- KEYS: head, news, nodes. ARGV: name, who, whether they leave ('leave'), then a
-- lane and an epoch for each claim.
local term, refused = enter(ARGV[1])
if refused then
  return refused
end
if ARGV[3] == 'leave' then
  redis.call('ZREM', KEYS[3], ARGV[2])
end
for index = 4, #ARGV, 2 do
  local lane = ARGV[index]
  if redis.call('HGET', KEYS[1], 'holder:' .. lane) == ARGV[2]
    and number('epoch:' .. lane) == tonumber(ARGV[index + 1]) then
    redis.call('HDEL', KEYS[1], 'holder:' .. lane, 'until:' .. lane)
  end
end
tell(KEYS[2])
return done(term)
