//! Virus scanning by clamd.
