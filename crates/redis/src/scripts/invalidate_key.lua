
-- Touches what is older than the version, and raises the floor under it
-- for the window, whether or not anything is held.
local function invalidate(key, version, remove, window)
  local held = head_of(key)
  if not held or held.foreign or held.gravestone or (remove and held.version < version) then
    local floor = version
    if held and not held.foreign and held.floor > floor then
      if held.gravestone then
        keep_for(key, window)
        return
      end
      floor = held.floor
    end
    local packed = pack(floor)
    local frame = 'L\1\2\0\0\0\0\0' .. packed .. packed .. string.rep('\0', HEAD_BYTES - 24)
    redis.call('SET', key, frame, 'PX', window)
    return
  end
  if held.version < version and held.flags % 2 == 0 then
    redis.call('SETRANGE', key, 3, string.char(held.flags + 1))
  end
  if held.floor < version then
    redis.call('SETRANGE', key, 16, pack(version))
  end
  keep_for(key, window)
end
