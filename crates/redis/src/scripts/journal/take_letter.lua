-- Takes a letter out. The record that is in it, or nil.
local function take_letter(letters, places, place, overhead)
  local letter = redis.call('HGET', letters, place)
  if not letter then
    return nil
  end
  local from, length = string.match(letter, '^%d+ %d+ ()(%d+) ')
  local record = string.sub(letter, from + #length + 1 + tonumber(length))
  redis.call('HDEL', letters, place)
  redis.call('ZREM', places, place)
  add('letters', -1)
  add('bytes', -(#letter + overhead))
  return record
end

