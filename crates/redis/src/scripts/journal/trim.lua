-- KEYS: head, news, stream, buried. ARGV: name, lane, epoch, up to where, how many
-- entries at most, what a record takes beside its own bytes.
-- Answers up to where it was trimmed: there may be more to do.
local term, refused = enter_owned()
if refused then
  return refused
end
local lane, applied, most = ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
if applied > number('last:' .. lane) then
  return { 'range', decimal(number('last:' .. lane)) }
end
local trimmed = number('trimmed:' .. lane)
if applied <= trimmed then
  return done(term, decimal(applied))
end
local entries = redis.call('XRANGE', KEYS[3], '-', decimal(applied), 'COUNT', decimal(most + 1))
local through, count, size = applied, #entries, 0
if count > most then
  count = most
  through = offset_of(entries[count][1])
end
for index = 1, count do
  size = size + #entries[index][2][2] + tonumber(ARGV[6])
end
redis.call('XTRIM', KEYS[3], 'MINID', decimal(through + 1))
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', decimal(through))
redis.call('HSET', KEYS[1], 'trimmed:' .. lane, decimal(through))
add('records', -count)
add('bytes', -size)
tell(KEYS[2])
return done(term, decimal(through))
