-- KEYS: head, stream, buried. ARGV: name, lane, a place that a record was given.
-- Answers the last place up to it of which something is known: if it is another
-- one, the records behind it are lost.
local term, refused = enter(ARGV[1])
if refused then
  return refused
end
local found = number('trimmed:' .. ARGV[2])
local entry = redis.call('XREVRANGE', KEYS[2], ARGV[3], '-', 'COUNT', '1')[1]
if entry then
  found = math.max(found, offset_of(entry[1]))
end
local buried = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. decimal(found), ARGV[3])
if #buried > 0 then
  found = tonumber(buried[#buried])
end
return done(term, decimal(found))
