-- KEYS: head, news. ARGV: a name to give, how many lanes.
-- Answers the name and how many lanes there are.
local name = redis.call('HGET', KEYS[1], 'name')
if not name then
  name = ARGV[1]
  redis.call('HSET', KEYS[1], 'name', name, 'server', this_server(), 'term', '1',
    'lanes', ARGV[2])
  redis.call('DEL', KEYS[2])
end
local term = enter(name)
-- Who has not appended for a day does not ask again what became of it.
local now = now_micros()
local fields = redis.call('HGETALL', KEYS[1])
for index = 1, #fields, 2 do
  if string.sub(fields[index], 1, 7) == 'writer:' then
    local at = tonumber(string.match(fields[index + 1], '^%d+ (%d+)'))
    if at < now - 86400000000 then
      redis.call('HDEL', KEYS[1], fields[index])
    end
  end
end
return done(term, name, redis.call('HGET', KEYS[1], 'lanes'), decimal(now))
