-- The few accounts of the system are found without a look at all the others.
CREATE INDEX system_accounts ON accounts (id) WHERE kind = 'system';
