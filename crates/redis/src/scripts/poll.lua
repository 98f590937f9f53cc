-- KEYS: clock, stream. ARGV: the sequence heard last, the most messages, whether
-- this is a cluster.
-- Answers epoch or nothing, version, floor, sequence, last message, time, and
-- the messages from the one heard last on, and how often the cluster changed.
-- A replica refuses this: the answer proves that this is the primary.
redis.call('PERSIST', KEYS[1])
local time = redis.call('TIME')
local changes = ''
if ARGV[3] == 'cluster' then
  changes = string.match(redis.call('CLUSTER', 'INFO'), 'cluster_current_epoch:(%d+)') or ''
end
local held = redis.call('HMGET', KEYS[1], 'epoch', 'version', 'floor', 'sequence', 'last')
if not held[1] then
  return { '', '0', '0', '0', '0-0', time[1], time[2], {}, changes }
end
local messages = {}
if tonumber(held[4]) > tonumber(ARGV[1]) then
  messages = redis.call('XRANGE', KEYS[2], ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])
end
return { held[1], held[2], held[3], held[4], held[5], time[1], time[2], messages, changes }
