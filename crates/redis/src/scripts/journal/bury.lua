-- KEYS: head, news, stream, letters, places, buried. ARGV: name, lane, epoch, then
-- place, cause and reason of each.
-- A letter is when it was accepted, its cause, how long its reason is, the reason
-- and the record, with a space behind each number.
local term, refused = enter_owned()
if refused then
  return refused
end
for index = 4, #ARGV, 3 do
  local place, reason = ARGV[index], ARGV[index + 2]
  local entry = redis.call('XRANGE', KEYS[3], place, place, 'COUNT', '1')[1]
  if entry then
    local at = string.match(entry[1], '-(%d+)$')
    local letter = table.concat({ at, ARGV[index + 1], decimal(#reason), reason .. entry[2][2] }, ' ')
    redis.call('XDEL', KEYS[3], entry[1])
    redis.call('HSET', KEYS[4], place, letter)
    redis.call('ZADD', KEYS[5], place, place)
    redis.call('ZADD', KEYS[6], place, place)
    add('records', -1)
    add('letters', 1)
    add('bytes', #letter - #entry[2][2])
  end
end
tell(KEYS[2])
return done(term)
