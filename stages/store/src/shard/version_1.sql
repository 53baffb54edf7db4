-- A shard as version 1 left it: one mail for two mailboxes.
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE mailboxes (
    id INTEGER PRIMARY KEY,
    account INTEGER NOT NULL,
    name TEXT NOT NULL,
    uidvalidity INTEGER NOT NULL,
    uidnext INTEGER NOT NULL DEFAULT 1,
    modseq INTEGER NOT NULL DEFAULT 1,
    messages INTEGER NOT NULL DEFAULT 0,
    unseen INTEGER NOT NULL DEFAULT 0,
    special_use TEXT NOT NULL DEFAULT '',
    subscribed INTEGER NOT NULL DEFAULT 1,
    UNIQUE (account, name)
);
-- What an account takes up.
CREATE TABLE accounts (
    account INTEGER PRIMARY KEY,
    bytes INTEGER NOT NULL,
    messages INTEGER NOT NULL
);
CREATE TABLE bodies (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    pack INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    refs INTEGER NOT NULL
);
CREATE TABLE messages (
    mailbox INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    body INTEGER NOT NULL,
    -- Bytes of prefix and body together.
    size INTEGER NOT NULL,
    -- Milliseconds since 1970.
    received INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    keywords TEXT NOT NULL,
    -- Header lines of this copy alone, before the body.
    prefix BLOB NOT NULL,
    mail BLOB NOT NULL,
    -- Why it is held, and for whom; empty for all other mail.
    held TEXT NOT NULL,
    held_for TEXT NOT NULL,
    PRIMARY KEY (mailbox, uid)
) WITHOUT ROWID;
-- What was delivered, so that it is not delivered again.
CREATE TABLE delivered (
    mail BLOB NOT NULL,
    target TEXT NOT NULL,
    PRIMARY KEY (mail, target)
) WITHOUT ROWID;
CREATE TABLE tombstones (
    mailbox INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    PRIMARY KEY (mailbox, modseq, uid)
) WITHOUT ROWID;
INSERT INTO mailboxes (id, account, name, uidvalidity, uidnext, modseq, messages, unseen) VALUES
    (1, 3, 'INBOX', 1790000000, 2, 2, 1, 1),
    (2, 5, 'INBOX', 1790000000, 2, 2, 1, 1);
INSERT INTO mailboxes (id, account, name, uidvalidity, subscribed) VALUES (3, 5, 'Junk', 1790000000, 0);
INSERT INTO accounts VALUES (3, 5, 1), (5, 5, 1);
INSERT INTO bodies VALUES (1, zeroblob(32), 1, 0, 58, 2);
INSERT INTO messages VALUES
    (1, 1, 2, 1, 5, 1790000000000, 0, '', x'', zeroblob(16), '', ''),
    (2, 1, 2, 1, 5, 1790000000000, 0, '', x'', zeroblob(16), '', '');
INSERT INTO delivered VALUES (zeroblob(16), 'a@x'), (zeroblob(16), 'b@x');
PRAGMA user_version = 1;
COMMIT;
