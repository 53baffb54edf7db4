//! Authentication, rules, and a score with its reasons.
