-- KEYS: head, news, stream, letters, places. ARGV: name, lane, place, the record to
-- write instead or nothing, the most bytes, what a record takes beside its own.
-- Answers the new place, or nothing if there is no such letter.
local term, refused = enter(ARGV[1])
if refused then
  return refused
end
local lane, overhead = ARGV[2], tonumber(ARGV[6])
local letter = redis.call('HGET', KEYS[4], ARGV[3])
if not letter then
  return done(term, '')
end
local grows = ARGV[4] ~= '' and #ARGV[4] - #letter or 0
if grows > 0 and number('bytes') + grows > tonumber(ARGV[5]) then
  return { 'full' }
end
local record = take_letter(KEYS[4], KEYS[5], ARGV[3], overhead)
if ARGV[4] ~= '' then
  record = ARGV[4]
end
local last = decimal(number('last:' .. lane) + 1)
redis.call('XADD', KEYS[3], last .. '-' .. decimal(now_micros()), 'r', record)
redis.call('HSET', KEYS[1], 'last:' .. lane, last)
add('records', 1)
add('bytes', #record + overhead)
tell(KEYS[2])
return done(term, last)
