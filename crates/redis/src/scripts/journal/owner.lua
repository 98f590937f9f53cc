-- For calls of an owner. ARGV: name, lane, epoch. The term, or nil and an answer.
local function enter_owned()
  local term, refused = enter(ARGV[1])
  if refused then
    return nil, refused
  end
  local epoch = number('epoch:' .. ARGV[2])
  if epoch ~= tonumber(ARGV[3]) then
    return nil, { 'replaced', decimal(epoch) }
  end
  return term
end

