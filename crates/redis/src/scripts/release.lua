-- KEYS: leases. ARGV: channel, then a token for each. Wakes those who wait.
for index, key in ipairs(KEYS) do
  local held = redis.call('GET', key)
  local token = ARGV[index + 1]
  if held == token or held == token .. 'w' then
    redis.call('DEL', key)
    if held ~= token then
      redis.call('PUBLISH', ARGV[1], key)
    end
  end
end
return 1
