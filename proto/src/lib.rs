//! What travels between the programs: envelopes, notices, subjects, streams.
