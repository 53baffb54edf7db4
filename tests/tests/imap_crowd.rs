//! Many IMAP clients at once on the same mailboxes.
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use serde_json::json;
use tests::chain::{Chain, Clamd, wait_for};
use tests::crowd::{Place, Server, run};
use tests::dovecot::Dovecot;

/// How many times Dovecot may panic before it is no accident any more.
const ATTEMPTS: u32 = 4;

/// What the clients check is what a good server does. One of whose processes panicked (Dovecot 2.3 now and then meets a
/// deadlock of its locks, which the kernel tells it of) says nothing about them: it is asked again.
#[test]
fn dovecot_bears_the_crowd() {
    for attempt in 1.. {
        let dovecot = Dovecot::start();
        let place = Place { port: dovecot.imap, user: "crowd@example.org", password: "any", tells_keywords: false };
        let crowd = || run(&place, Duration::from_secs(4), Server::Lives, || {});
        match catch_unwind(AssertUnwindSafe(crowd)) {
            Ok(()) => return,
            Err(_) if attempt < ATTEMPTS && dovecot.panicked() => eprintln!("Dovecot panicked: once more"),
            Err(panic) => resume_unwind(panic),
        }
    }
}

fn chain(clamd: &Clamd) -> Chain {
    Chain::start_all_with(clamd, &[("/stages/store/shards", json!(2))])
}

fn alice(chain: &Chain) -> Place<'static> {
    Place { port: chain.imap, user: "alice@example.org", password: "chainmail", tells_keywords: true }
}

#[test]
fn our_store_bears_the_crowd() {
    let clamd = Clamd::start();
    let chain = chain(&clamd);
    run(&alice(&chain), Duration::from_secs(8), Server::Lives, || {});
}

/// What was answered with OK is there, and neither UIDs nor MODSEQ go back.
#[test]
fn the_crowd_lives_on_when_the_store_is_killed() {
    let clamd = Clamd::start();
    let mut chain = chain(&clamd);
    let place = alice(&chain);
    run(&place, Duration::from_secs(10), Server::Dies, || {
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(1500));
            chain.kill("all");
            chain.start("all");
        }
    });
    wait_for("the chain", || chain.ready().starts_with("HTTP/1.1 200"));
}
