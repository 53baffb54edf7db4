//! What was answered with 250 and then meets an accept node that has forgotten, or other recipients of the same mail. Every
//! test ends with what is in the mailboxes.
#![allow(clippy::unwrap_used)]

use serde_json::json;
use tests::chain::{Chain, Clamd, wait_for};
use tests::clients::{Smtp, eicar};

/// The copies that the stages have are the only ones then, and their senders had 250.
#[test]
fn a_virus_that_the_journal_has_lost_is_held() {
    let clamd = Clamd::start();
    let mut chain = Chain::start_parts_with(&clamd, &[("/stages/accept/verdict_wait", json!("100ms"))]);
    clamd.pause();
    let reply = Smtp::connect(&chain).send("s@elsewhere.example", &["alice@example.org"], &eicar());
    assert!(reply.starts_with("250 "), "{reply}");
    chain.kill("accept");
    std::fs::rename(chain.folder().join("var/journal"), chain.folder().join("var/journal-away")).unwrap();
    chain.start("accept");
    drop(Smtp::connect(&chain));
    clamd.resume();
    wait_for("the quarantine to have it", || chain.read("quarantine@example.org").len() == 1);
    assert!(chain.read("alice@example.org").is_empty());
    let listed = chain.command(&["held", "list"]);
    assert!(listed.contains("for alice@example.org") && listed.contains("virus found: Eicar"), "{listed}");
}
