
-- KEYS: marks, times. ARGV: retention in milliseconds, then for each mark its
-- version and its member.
for index = 2, #ARGV, 2 do
  raise(KEYS[1], KEYS[2], { ARGV[index + 1] }, tonumber(ARGV[index]), tonumber(ARGV[1]))
end
return 1
