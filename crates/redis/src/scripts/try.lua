-- Tries a command, and notes it in `failures` if that failed.
local failures = {}
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then
    failures[#failures + 1] = (...) .. ' ' .. answer.err
  end
end
