-- KEYS: head, news, letters, places. ARGV: name, what a record takes beside its own
-- bytes, then places. Answers how many letters there were of these.
local term, refused = enter(ARGV[1])
if refused then
  return refused
end
local dropped = 0
for index = 3, #ARGV do
  if take_letter(KEYS[3], KEYS[4], ARGV[index], tonumber(ARGV[2])) then
    dropped = dropped + 1
  end
end
return done(term, decimal(dropped))
