
-- The state of the clock, or nil and an error if it is of another epoch.
local function state(clock, epoch)
  local held = redis.call('HMGET', clock, 'epoch', 'version', 'sequence')
  if held[1] ~= epoch then
    return nil, redis.error_reply('LARDEREPOCH ' .. (held[1] or 'none'))
  end
  return { version = tonumber(held[2]), sequence = tonumber(held[3]) }
end
