-- KEYS: an entry for this alone. Tries each command that entries and leases
-- take, and answers what failed.
try('SET', KEYS[1], 'probe', 'PX', '1000')
try('GET', KEYS[1])
try('GETRANGE', KEYS[1], '0', '1')
try('SETRANGE', KEYS[1], '0', 'P')
try('PTTL', KEYS[1])
try('PEXPIRE', KEYS[1], '1000')
try('DEL', KEYS[1])
return failures
