-- What every script of a journal begins with. KEYS[1] is its head, ARGV[1] the
-- name that the caller knows. Numbers are exact up to 2^53.
--
-- The head says which server wrote last. Another one may lack the end of what was
-- acknowledged: it goes on far above, so that no place and no epoch comes twice.
local GAP = 4294967296
local EPOCHS = 1048576

local function decimal(number)
  return string.format('%.0f', number)
end

local function now_micros()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function this_server()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or ''
end

-- The value of a field of the head, a number.
local function number(field)
  return tonumber(redis.call('HGET', KEYS[1], field) or '0')
end

local function add(field, by)
  return redis.call('HINCRBY', KEYS[1], field, decimal(by))
end

-- The term, or nil and an answer.
local function enter(name)
  local held = redis.call('HMGET', KEYS[1], 'name', 'server', 'term', 'lanes')
  if not held[1] then
    return nil, { 'gone' }
  end
  if held[1] ~= name then
    return nil, { 'other', held[1] }
  end
  local term = tonumber(held[3])
  local server = this_server()
  if held[2] ~= server then
    term = term + 1
    for lane = 0, tonumber(held[4]) - 1 do
      add('last:' .. lane, GAP)
      add('epoch:' .. lane, EPOCHS)
    end
    redis.call('HSET', KEYS[1], 'server', server, 'term', decimal(term))
  end
  return term
end

-- An answer: how the journal is, and what else there is to say.
local function done(term, ...)
  local held = redis.call('HMGET', KEYS[1], 'records', 'letters', 'bytes')
  return { 'done', decimal(term), held[1] or '0', held[2] or '0', held[3] or '0', ... }
end

-- Wakes who waits for news.
local function tell(stream)
  redis.call('XADD', stream, 'MAXLEN', '~', '256', '*', 'n', '')
end

local function offset_of(id)
  return tonumber(string.match(id, '^(%d+)-'))
end

