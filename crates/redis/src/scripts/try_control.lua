-- KEYS: a hash, a stream, a sorted set, all for this alone. ARGV: channel, how
-- to publish. Tries each command that changes take, and answers what failed.
try('TIME')
if ARGV[2] == 'SPUBLISH' then
  local answer = redis.pcall('CLUSTER', 'INFO')
  if type(answer) == 'table' and answer.err then
    failures[#failures + 1] = 'cluster|info ' .. answer.err
  end
end
try('HSET', KEYS[1], 'field', '1')
try('HMGET', KEYS[1], 'field')
try('PERSIST', KEYS[1])
try('XADD', KEYS[2], 'MAXLEN', '~', '10', '*', 'field', '1')
try('XRANGE', KEYS[2], '-', '+', 'COUNT', '1')
try('ZADD', KEYS[3], '1', 'member')
try('ZSCORE', KEYS[3], 'member')
try('ZRANGE', KEYS[3], '0', '-1')
try('ZRANGEBYSCORE', KEYS[3], '-inf', '+inf', 'LIMIT', '0', '1')
try('ZREM', KEYS[3], 'member')
try(ARGV[2], ARGV[1], '')
try('PUBLISH', ARGV[1], '')
try('INFO', 'replication')
try('DEL', KEYS[1])
redis.pcall('DEL', KEYS[2])
redis.pcall('DEL', KEYS[3])
return failures
