
-- KEYS: entries. ARGV: version, verb, window in milliseconds.
local version = tonumber(ARGV[1])
for _, key in ipairs(KEYS) do
  invalidate(key, version, ARGV[2] == 'remove', tonumber(ARGV[3]))
end
return #KEYS
