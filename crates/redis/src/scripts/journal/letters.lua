-- KEYS: head, letters, places. ARGV: name, after which place, how many at most.
-- Answers place and letter of each.
local term, refused = enter(ARGV[1])
if refused then
  return refused
end
local answers = {}
local places = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[2], '+inf', 'LIMIT', '0', ARGV[3])
for _, place in ipairs(places) do
  answers[#answers + 1] = place
  answers[#answers + 1] = redis.call('HGET', KEYS[2], place) or ''
end
return done(term, answers)
