-- Accounts of a first run, whose password everybody knows until it is changed.
CREATE TABLE first_run (
    address TEXT NOT NULL PRIMARY KEY
);
