
-- KEYS: clock, stream, marks, times, then entries to invalidate.
-- ARGV: epoch, the version to go over, verb, announcement, longest stream,
-- channel, how to publish, window and retention in milliseconds, then members to
-- mark.
local held, refused = state(KEYS[1], ARGV[1])
if refused then
  return refused
end
local version = math.max(held.version, tonumber(ARGV[2])) + 1
for index = 5, #KEYS do
  invalidate(KEYS[index], version, ARGV[3] == 'remove', tonumber(ARGV[8]))
end
if #ARGV > 9 then
  local members = {}
  for index = 10, #ARGV do
    members[#members + 1] = ARGV[index]
  end
  raise(KEYS[3], KEYS[4], members, version, tonumber(ARGV[9]))
end
local time = redis.call('TIME')
local sequence = decimal(held.sequence + 1)
local nonce = decimal(tonumber(time[1]) * 1000000 + tonumber(time[2]))
local last = sequence .. '-' .. nonce
redis.call('HSET', KEYS[1], 'version', decimal(version),
  'sequence', sequence, 'last', last)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], last,
  'version', decimal(version), 'announcement', ARGV[4])
redis.call(ARGV[7], ARGV[6], table.concat({ ARGV[1], last, decimal(version), ARGV[4] }, ' '))
return { decimal(version), sequence }
