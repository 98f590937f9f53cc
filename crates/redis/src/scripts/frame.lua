-- What an entry's head says. Offsets are those of the stored format, counted
-- from one. Numbers are compared as numbers: text would be compared by the
-- server's locale.
local HEAD_BYTES = 56
local GRAVESTONE = 2

local function decimal(number)
  return string.format('%.0f', number)
end

local function pack(number)
  local high = math.floor(number / 4294967296)
  return struct.pack('>I4I4', high, number - high * 4294967296)
end

local function unpack_at(frame, at)
  local high, low = struct.unpack('>I4I4', frame, at)
  return high * 4294967296 + low
end

-- nil: nothing there, or nothing of ours. What another format wrote is known
-- only to be there.
local function head_of(key)
  local head = redis.pcall('GETRANGE', key, 0, HEAD_BYTES - 1)
  if type(head) ~= 'string' or #head < HEAD_BYTES or string.sub(head, 1, 1) ~= 'L' then
    return nil
  end
  if string.byte(head, 2) ~= 1 then
    return { foreign = true }
  end
  return {
    gravestone = string.byte(head, 3) == GRAVESTONE,
    flags = string.byte(head, 4),
    version = unpack_at(head, 9),
    floor = unpack_at(head, 17),
    read_at = unpack_at(head, 25),
  }
end

-- Lets a key live at least this long.
local function keep_for(key, millis)
  local left = redis.call('PTTL', key)
  if left >= 0 and left < millis then
    redis.call('PEXPIRE', key, millis)
  end
end
