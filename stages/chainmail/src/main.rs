//! The one binary: every stage, and the operator's commands.

fn main() {}
