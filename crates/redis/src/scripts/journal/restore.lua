-- KEYS: head, news, then everything else that a journal has. ARGV: name, how many
-- lanes, then for each the highest place and epoch that the caller knows of, and up
-- to where it was trimmed. Makes a journal that is gone anew, above all that was.
-- What is gone is not trimmed: whoever has it in memory applies it.
local held = redis.call('HGET', KEYS[1], 'name')
if not held then
  for index = 2, #KEYS do
    redis.call('DEL', KEYS[index])
  end
  redis.call('HSET', KEYS[1], 'name', ARGV[1], 'server', this_server(), 'lanes', ARGV[2],
    'term', decimal(now_micros()))
  for lane = 0, tonumber(ARGV[2]) - 1 do
    redis.call('HSET', KEYS[1],
      'last:' .. lane, decimal(tonumber(ARGV[3 + 3 * lane]) + GAP),
      'epoch:' .. lane, decimal(tonumber(ARGV[4 + 3 * lane]) + EPOCHS),
      'trimmed:' .. lane, ARGV[5 + 3 * lane])
  end
end
local term, refused = enter(ARGV[1])
if refused then
  return refused
end
return done(term)
