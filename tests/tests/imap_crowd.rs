//! Many IMAP clients at once on the same mailboxes.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tests::crowd::{Place, Server, run};
use tests::dovecot::Dovecot;

/// What the clients check is what a good server does.
#[test]
fn dovecot_bears_the_crowd() {
    let dovecot = Dovecot::start();
    let place = Place { port: dovecot.imap, user: "crowd@example.org", password: "any" };
    run(&place, Duration::from_secs(4), Server::Lives, || {});
}
