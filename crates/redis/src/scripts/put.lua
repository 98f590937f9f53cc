
-- KEYS: the clock, if an epoch is given; entries.
-- ARGV: condition, the lowest version taken, epoch or nothing, the window in
-- milliseconds, then for each entry its frame and how long it lives likewise.
-- Answers for each entry -1, or the version that stands against it.
local lowest = tonumber(ARGV[2])
local first = 1
if ARGV[3] ~= '' then
  first = 2
  local held = redis.call('HMGET', KEYS[1], 'epoch', 'floor')
  if held[1] ~= ARGV[3] then
    return redis.error_reply('LARDEREPOCH ' .. (held[1] or 'none'))
  end
  lowest = math.max(lowest, tonumber(held[2]))
end

local function against(frame, held)
  local version = unpack_at(frame, 9)
  if version < lowest then
    return lowest
  end
  if not held then
    return nil
  end
  if held.foreign then
    return 0
  end
  if held.gravestone then
    return version < held.floor and held.floor or nil
  end
  if ARGV[1] == 'vacant' then
    return held.version
  end
  local newer = version > held.version
    or (version == held.version and unpack_at(frame, 25) > held.read_at)
  if not newer or version < held.floor then
    return math.max(held.version, held.floor)
  end
  return nil
end

local answers = {}
for index = first, #KEYS do
  local key = KEYS[index]
  local place = index - first
  local frame = ARGV[5 + 2 * place]
  local lives = tonumber(ARGV[6 + 2 * place])
  local held = head_of(key)
  local stands = against(frame, held)
  if not stands then
    -- The floor must outlive an entry that is replaced.
    if held and held.floor > 0 then
      frame = string.sub(frame, 1, 16) .. pack(held.floor) .. string.sub(frame, 25)
      lives = math.max(lives, math.min(redis.call('PTTL', key), tonumber(ARGV[4])))
    end
    redis.call('SET', key, frame, 'PX', decimal(lives))
  end
  answers[#answers + 1] = stands or -1
end
return answers
