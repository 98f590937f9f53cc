-- KEYS: head, news, then the stream of each lane that is appended to. ARGV: name,
-- who appends, the number of this call of theirs, the most records, the most
-- bytes, what a record takes beside its own bytes; then for each append the place
-- of its key, its lane, how many records, and these.
-- Answers for each the place of its last record, or 'full'. A call that was made
-- before is answered as it was then.
local term, refused = enter(ARGV[1])
if refused then
  return refused
end
local writer = 'writer:' .. ARGV[2]
local call = tonumber(ARGV[3])
local before = redis.call('HGET', KEYS[1], writer)
if before then
  local made, answers = string.match(before, '^(%d+) %d+ (.*)$')
  if tonumber(made) == call then
    -- A write, so that whoever waits for replicas waits for this one, too.
    redis.call('HSET', KEYS[1], writer, before)
    return done(term, answers)
  end
  if tonumber(made) > call then
    return { 'late' }
  end
end
local records, bytes = number('records'), number('bytes')
local letters = number('letters')
local now = decimal(now_micros())
local answers = {}
local at = 7
while at <= #ARGV do
  local stream, lane, count = KEYS[tonumber(ARGV[at])], ARGV[at + 1], tonumber(ARGV[at + 2])
  local size = count * tonumber(ARGV[6])
  for index = at + 3, at + 2 + count do
    size = size + #ARGV[index]
  end
  if records + letters + count > tonumber(ARGV[4]) or bytes + size > tonumber(ARGV[5]) then
    answers[#answers + 1] = 'full'
  else
    local last = number('last:' .. lane)
    for index = at + 3, at + 2 + count do
      last = last + 1
      redis.call('XADD', stream, decimal(last) .. '-' .. now, 'r', ARGV[index])
    end
    redis.call('HSET', KEYS[1], 'last:' .. lane, decimal(last))
    records, bytes = records + count, bytes + size
    answers[#answers + 1] = decimal(last)
  end
  at = at + 3 + count
end
answers = table.concat(answers, ' ')
redis.call('HSET', KEYS[1], 'records', decimal(records), 'bytes', decimal(bytes),
  writer, decimal(call) .. ' ' .. now .. ' ' .. answers)
tell(KEYS[2])
return done(term, answers)
