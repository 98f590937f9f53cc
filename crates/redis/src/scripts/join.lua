
-- KEYS: clock, stream. ARGV: a new epoch, the epoch known or nothing, the
-- highest version known, whether the history under the known epoch was lost.
-- Answers epoch, version, floor, sequence, last message, time.
local known = tonumber(ARGV[3])
local time = redis.call('TIME')
local held = redis.call('HMGET', KEYS[1], 'epoch', 'version', 'floor', 'sequence', 'last')
local epoch, version, floor = held[1], tonumber(held[2] or 0), tonumber(held[3] or 0)
local sequence, last = held[4] or '0', held[5] or '0-0'
if not epoch then
  -- A new history. It starts above what an earlier one has left in stores that
  -- kept their entries.
  epoch, sequence, last = ARGV[1], '0', '0-0'
  version = math.max(tonumber(time[1]) * 1000000 + tonumber(time[2]), known + 1)
  floor = known > 0 and known + 1 or 0
  redis.call('DEL', KEYS[2])
elseif epoch == ARGV[2] and ARGV[4] == 'lost' then
  epoch = ARGV[1]
  version = math.max(version, known) + 1
  floor = version
elseif epoch ~= ARGV[2] and ARGV[2] ~= '' then
  -- Whoever comes from another history began its loads before this one.
  version = math.max(version, known + 1)
  floor = math.max(floor, known + 1)
else
  version = math.max(version, known)
end
redis.call('HSET', KEYS[1], 'epoch', epoch, 'version', decimal(version), 'floor',
  decimal(floor), 'sequence', sequence, 'last', last)
return { epoch, decimal(version), decimal(floor), sequence, last, time[1], time[2] }
