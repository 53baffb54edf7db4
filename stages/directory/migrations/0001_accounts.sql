-- Plain SQL that PostgreSQL takes as well.
CREATE TABLE domains (
    name TEXT NOT NULL PRIMARY KEY,
    -- Another domain whose addresses this one shares; empty for a domain of its own.
    alias_of TEXT NOT NULL DEFAULT '',
    -- Where mail for unknown addresses goes; empty for nowhere.
    catch_all TEXT NOT NULL DEFAULT ''
);

CREATE TABLE accounts (
    id INTEGER NOT NULL PRIMARY KEY,
    address TEXT NOT NULL UNIQUE,
    password TEXT NOT NULL,
    store TEXT NOT NULL,
    -- active, suspended
    status TEXT NOT NULL,
    -- user, system
    kind TEXT NOT NULL,
    quota_bytes BIGINT NOT NULL DEFAULT 0,
    quota_messages BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE aliases (
    address TEXT NOT NULL,
    target TEXT NOT NULL,
    PRIMARY KEY (address, target)
);

-- The number of an account is never given twice, so that an address that is used again does not inherit mail.
CREATE TABLE account_numbers (
    last BIGINT NOT NULL
);
INSERT INTO account_numbers (last) VALUES (0);
