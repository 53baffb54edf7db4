//! IMAP by other people's rules: imaptest's scripts, against Dovecot, which they were written for, and against our
//! store.
#![allow(clippy::unwrap_used)]

use tests::chain::{Chain, Clamd};
use tests::dovecot::Dovecot;
use tests::imaptest::{Outcome, Place, Script, judge, play, scripts};

/// What Dovecot does not do as the scripts want it.
const DOVECOT_DIFFERS: &[(&str, &str)] = &[("append-binary", NUL)];

/// What our store does not do as the scripts want it.
const STORE_DIFFERS: &[(&str, &str)] = &[("append-binary", NUL)];

/// It appends a part of seven octets, and asks for its size and its text: seven, and all of it but the last. imaptest
/// itself does not see that, as it ends its comparison at the NUL with which the text begins.
const NUL: &str = "the script appends seven octets, and wants the first six of them as all that there are";

/// The interpreter can say yes: to the server for which the scripts were written.
#[test]
fn dovecot_passes_imaptest() {
    let Some(scripts) = scripts() else { return };
    assert_eq!(scripts.len(), 71);
    let dovecot = Dovecot::start();
    judge(&all(&scripts, dovecot.imap), DOVECOT_DIFFERS).unwrap();
}

/// Every group in an account of its own.
fn all(scripts: &[(String, Script)], port: u16) -> Vec<(String, Outcome)> {
    let play = |(number, (name, script)): (usize, &(String, Script))| {
        let user = format!("user{number}@example.org");
        (name.clone(), play(script, &Place { port, user: &user, password: "chainmail" }))
    };
    scripts.iter().enumerate().map(play).collect()
}

/// Groups that want what we do not have are skipped, those that fail stand in the list above with a reason.
#[test]
fn our_store_passes_imaptest() {
    let Some(scripts) = scripts() else { return };
    let clamd = Clamd::start();
    let chain = Chain::start_all(&clamd);
    for number in 0..scripts.len() {
        chain.command_with(&["account", "add", &format!("user{number}@example.org")], "chainmail\n");
    }
    judge(&all(&scripts, chain.imap), STORE_DIFFERS).unwrap();
}

/// And it can say no: to scripts that want what is not so.
#[test]
fn scripts_that_lie_fail() {
    let dovecot = Dovecot::start();
    let mbox = b"From a@b  Fri Feb 22 17:06:23 2008\nSubject: x\n\nbody\n\n";
    for (number, (steps, does)) in [
        ("ok fetch 1 flags\n* 1 fetch (flags ())\n", true),
        ("ok fetch 1 flags\n* 1 fetch (flags (\\seen))\n", false),
        ("ok fetch 1 rfc822.size\n* 1 fetch (rfc822.size 22)\n", true),
        ("ok fetch 1 rfc822.size\n* 1 fetch (rfc822.size 20)\n", false),
        ("ok fetch 1 body.peek[text]\n* 1 fetch (body[text] {{{\nbody\n\n\n}}})\n", true),
        ("ok fetch 1 body.peek[text]\n* 1 fetch (body[text] {{{\nbody\n\n}}})\n", false),
        ("ok search all\n* search 1\n", true),
        ("ok search all\n* search\n", false),
        ("ok search all\n! search 1\n", false),
        ("no noop\n", false),
        ("bad fetch nonsense\n", true),
        ("ok fetch nonsense\n", false),
        ("select nowhere\nno\n", true),
        ("select nowhere\nno [trycreate]\n", false),
        ("ok fetch 1 uid\n* 1 fetch (uid $a)\nok uid fetch $a uid\n* 1 fetch (uid $a)\n", true),
        ("ok fetch 1 (uid rfc822.size)\n* 1 fetch (uid $a rfc822.size $a)\n", false),
        ("ok store 1 flags \\deleted\nok expunge\n* $1 expunge\n", true),
        ("ok store 1 flags \\deleted\nok expunge\n* 2 expunge\n", false),
    ]
    .into_iter()
    .enumerate()
    {
        let user = format!("liar{number}@example.org");
        let script = Script::read(format!("messages: 1\n\n{steps}").as_bytes(), mbox);
        let outcome = play(&script, &Place { port: dovecot.imap, user: &user, password: "any" });
        assert_eq!(outcome == Outcome::Passed, does, "{steps}: {outcome:?}");
    }
    let script = Script::read(b"capabilities: IMAP4REV1 XYZ\n\nok noop\n", mbox);
    let outcome = play(&script, &Place { port: dovecot.imap, user: "x@example.org", password: "any" });
    assert_eq!(outcome, Outcome::Skipped(vec!["XYZ".to_owned()]));
}
