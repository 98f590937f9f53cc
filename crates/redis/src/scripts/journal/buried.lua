-- KEYS: head, buried. ARGV: name. Answers what was buried and is not trimmed.
local term, refused = enter(ARGV[1])
if refused then
  return refused
end
return done(term, redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '+inf'))
