-- KEYS: head, news. ARGV: name, lane, up to where.
local term, refused = enter(ARGV[1])
if refused then
  return refused
end
if number('hurry:' .. ARGV[2]) < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], 'hurry:' .. ARGV[2], ARGV[3])
  tell(KEYS[2])
end
return done(term)
