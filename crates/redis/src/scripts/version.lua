
-- KEYS: clock. ARGV: epoch, the version to go over.
local held, refused = state(KEYS[1], ARGV[1])
if refused then
  return refused
end
local version = decimal(math.max(held.version, tonumber(ARGV[2])) + 1)
redis.call('HSET', KEYS[1], 'version', version)
return version
