CREATE TABLE household (id INTEGER PRIMARY KEY, name TEXT NOT NULL, monthly_cents INTEGER NOT NULL);
CREATE TABLE member (
    household_id INTEGER NOT NULL REFERENCES household, id INTEGER NOT NULL,
    name TEXT NOT NULL, share_percent INTEGER NOT NULL,
    PRIMARY KEY (household_id, id)
);
CREATE TABLE expense (
    household_id INTEGER NOT NULL, id INTEGER NOT NULL, member_id INTEGER NOT NULL,
    what TEXT NOT NULL, cents INTEGER NOT NULL CHECK (cents > 0),
    PRIMARY KEY (household_id, id),
    FOREIGN KEY (household_id, member_id) REFERENCES member
);
INSERT INTO household VALUES (1, 'Lovelace', 200000), (2, 'Hopper', 150000);
INSERT INTO member VALUES (1, 1, 'Ada', 50), (1, 2, 'Byron', 30), (1, 3, 'Ralph', 20), (2, 1, 'Grace', 100);
INSERT INTO expense VALUES (1, 1, 1, 'rent', 90000), (2, 1, 1, 'rent', 70000);
