CREATE TABLE quote (symbol TEXT PRIMARY KEY, price INTEGER NOT NULL);
CREATE TABLE position (
    account_id INTEGER NOT NULL, symbol TEXT NOT NULL, lots INTEGER NOT NULL,
    PRIMARY KEY (account_id, symbol)
);
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 600)
INSERT INTO quote SELECT 'S' || n, 10 + n % 90 FROM number;
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 20)
INSERT INTO position SELECT n, 'S' || n, n * 10 FROM number
UNION ALL SELECT n, 'S' || (n + 1), 5 FROM number;
