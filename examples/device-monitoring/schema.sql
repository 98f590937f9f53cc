CREATE TABLE device (id INTEGER PRIMARY KEY, site_id INTEGER NOT NULL, kind TEXT NOT NULL);
-- What a device says now, one row each.
CREATE TABLE current (
    device_id INTEGER PRIMARY KEY REFERENCES device, celsius REAL NOT NULL, errors INTEGER NOT NULL DEFAULT 0
) STRICT;
-- What it has said so far: the database itself keeps each value that it is given.
CREATE TABLE reading (device_id INTEGER NOT NULL, celsius REAL NOT NULL);
CREATE INDEX reading_of ON reading (device_id);
CREATE TRIGGER first_value AFTER INSERT ON current BEGIN
    INSERT INTO reading VALUES (new.device_id, new.celsius);
END;
CREATE TRIGGER next_value AFTER UPDATE OF celsius ON current BEGIN
    INSERT INTO reading VALUES (new.device_id, new.celsius);
END;
-- Read by the application, which keeps what it found in a plain key.
CREATE TABLE threshold (kind TEXT PRIMARY KEY, celsius REAL NOT NULL);

WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 12)
INSERT INTO device SELECT n, 1 + (n - 1) / 4, CASE n % 2 WHEN 1 THEN 'oven' ELSE 'freezer' END FROM number;
INSERT INTO current (device_id, celsius) SELECT id, CASE kind WHEN 'oven' THEN 180.0 ELSE -20.0 END FROM device;
INSERT INTO threshold VALUES ('oven', 240.0), ('freezer', -15.0);
