-- KEYS: head, news, then everything else that a journal has. ARGV: name, how many
-- lanes, then for each the highest place and epoch that the caller knows of.
-- Makes a journal that is gone anew, above all that was.
local held = redis.call('HGET', KEYS[1], 'name')
if not held then
  for index = 2, #KEYS do
    redis.call('DEL', KEYS[index])
  end
  redis.call('HSET', KEYS[1], 'name', ARGV[1], 'server', this_server(), 'lanes', ARGV[2],
    'term', decimal(now_micros()))
  for lane = 0, tonumber(ARGV[2]) - 1 do
    local last = decimal(tonumber(ARGV[3 + 2 * lane]) + GAP)
    redis.call('HSET', KEYS[1], 'last:' .. lane, last, 'trimmed:' .. lane, last,
      'epoch:' .. lane, decimal(tonumber(ARGV[4 + 2 * lane]) + EPOCHS))
  end
end
local term, refused = enter(ARGV[1])
if refused then
  return refused
end
return done(term)
