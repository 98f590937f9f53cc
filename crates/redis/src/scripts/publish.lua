
-- KEYS: clock, stream, marks, times, then entries to invalidate.
-- ARGV: epoch, the version to go over, the version claimed before or nothing,
-- verb, announcement, longest stream, channel, how to publish, window and
-- retention in milliseconds, then members to mark.
local held, refused = state(KEYS[1], ARGV[1])
if refused then
  return refused
end
local version = tonumber(ARGV[3])
if not version then
  version = math.max(held.version, tonumber(ARGV[2])) + 1
end
for index = 5, #KEYS do
  invalidate(KEYS[index], version, ARGV[4] == 'remove', tonumber(ARGV[9]))
end
if #ARGV > 10 then
  local members = {}
  for index = 11, #ARGV do
    members[#members + 1] = ARGV[index]
  end
  raise(KEYS[3], KEYS[4], members, version, tonumber(ARGV[10]))
end
local time = redis.call('TIME')
local sequence = decimal(held.sequence + 1)
local nonce = decimal(tonumber(time[1]) * 1000000 + tonumber(time[2]))
local last = sequence .. '-' .. nonce
redis.call('HSET', KEYS[1], 'version', decimal(math.max(version, held.version)),
  'sequence', sequence, 'last', last)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], last,
  'version', decimal(version), 'announcement', ARGV[5])
redis.call(ARGV[8], ARGV[7], table.concat({ ARGV[1], last, decimal(version), ARGV[5] }, ' '))
return { decimal(version), sequence }
