//! The IMAP scripts of imaptest, played against a server: what each side says in them is known by people who wrote
//! neither that server nor this one.
//!
//! The scripts are among the corpora; the interpreter is our own, and is held to the real server for which they were
//! written. A group is one script with its mailbox. A group that wants what the server does not offer is skipped.

mod compare;
pub mod item;
mod play;
mod script;
mod session;

use std::collections::{BTreeMap, BTreeSet};

pub use play::{Place, play};
pub use script::Script;
pub use session::Session;

use crate::corpora;

/// What came of a group.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// Capabilities that the server does not have.
    Skipped(Vec<String>),
    /// What was wanted, and what came.
    Failed(String),
}

/// The groups with their names, if the corpora are there.
pub fn scripts() -> Option<Vec<(String, Script)>> {
    let archive = corpora::folder("conformance")?.join("imap-imaptest-scripts.tar.zst");
    let files: BTreeMap<String, Vec<u8>> = corpora::unpack(&archive).into_iter().collect();
    let top = |path: &str| path.split_once('/').map_or(path, |(_, rest)| rest).to_owned();
    let files: BTreeMap<String, Vec<u8>> = files.into_iter().map(|(path, bytes)| (top(&path), bytes)).collect();
    // Those in the folder `broken` are not of the set: they want the server to live in a certain time zone.
    let is_script = |name: &&String| !name.contains(['.', '/']);
    let read = |name: &String| {
        let own = files.get(&format!("{name}.mbox"));
        let mbox = own.or_else(|| files.get("default.mbox")).expect("the set has a default mailbox");
        (name.clone(), Script::read(&files[name], mbox))
    };
    Some(files.keys().filter(is_script).map(read).collect())
}

/// Judges a whole run against the groups that may fail, each with its reason. Prints one line for every group.
pub fn judge(outcomes: &[(String, Outcome)], may_fail: &[(&str, &str)]) -> Result<(), String> {
    let reasons: BTreeMap<&str, &str> = may_fail.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut counts = [0; 3];
    for (name, outcome) in outcomes {
        match outcome {
            Outcome::Passed => {
                counts[0] += 1;
                println!("passed   {name}");
                if reasons.contains_key(name.as_str()) {
                    wrong.push(format!("{name} passes: take it off the list"));
                }
            }
            Outcome::Failed(why) => {
                counts[1] += 1;
                println!("failed   {name}: {}\n{why}\n", reasons.get(name.as_str()).unwrap_or(&"no reason is known"));
                if !reasons.contains_key(name.as_str()) {
                    wrong.push(format!("{name} fails: {why}"));
                }
            }
            Outcome::Skipped(missing) => {
                counts[2] += 1;
                println!("skipped  {name}: without {}", missing.join(" "));
            }
        }
    }
    println!("{} passed, {} failed, {} skipped", counts[0], counts[1], counts[2]);
    let names: BTreeSet<&str> = outcomes.iter().map(|(name, _)| name.as_str()).collect();
    wrong.extend(reasons.keys().filter(|name| !names.contains(*name)).map(|name| format!("there is no group {name}")));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n\n")) }
}
