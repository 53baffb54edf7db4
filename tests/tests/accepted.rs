//! What was answered with 250 and then meets an accept node that has forgotten, or other recipients of the same mail.
//! Every test ends with what is in the mailboxes.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::json;
use tests::chain::{Chain, Clamd, free_port, wait_for};
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
    wait_for("the quarantine to have it", || !chain.read("quarantine@example.org").is_empty());
    // Another copy would be on its way yet; the journal's books know of none.
    chain.settles();
    assert_eq!(chain.read("quarantine@example.org").len(), 1);
    assert!(chain.read("alice@example.org").is_empty());
    let listed = chain.command(&["held", "list"]);
    assert!(listed.contains("for alice@example.org") && listed.contains("virus found: Eicar"), "{listed}");
}

/// Sends to these and has accept killed after the mail is kept, before the 250.
fn send_in_vain(chain: &mut Chain, body: &[u8], to: &[&str], kept: u64) {
    let mut smtp = Smtp::connect(chain);
    smtp.command("MAIL FROM:<s@elsewhere.example>");
    for to in to {
        assert!(smtp.command(&format!("RCPT TO:<{to}>")).starts_with("250 "));
    }
    assert!(smtp.command("DATA").starts_with("354 "));
    smtp.stream().write_all(&wire::smtp::client::stuff(body)).unwrap();
    wait_for("it to be kept", || {
        let status = chain.attempt(&["status", "--json"], "").unwrap_or_default();
        serde_json::from_str::<serde_json::Value>(&status).is_ok_and(|status| status["accepted"] == kept)
    });
    chain.kill("accept");
    chain.start("accept");
}

/// Whose recipients differ from those of the attempt before: a directory that was unsure of one knows it now, or the
/// other way round.
#[test]
fn the_next_attempt_has_other_recipients() {
    let clamd = Clamd::start();
    let mut chain = Chain::start_parts_with(&clamd, &[("/stages/accept/verdict_wait", json!("1min"))]);
    let [alice, bob] = ["alice@example.org", "bob@example.org"];
    let mail = |name: &str| format!("Subject: {name}\r\nMessage-ID: <{name}@x>\r\n\r\n{name}\r\n").into_bytes();
    clamd.pause();
    send_in_vain(&mut chain, &mail("more"), &[alice], 1);
    send_in_vain(&mut chain, &mail("fewer"), &[alice, bob], 3);
    let more = Smtp::connect(&chain).send("s@elsewhere.example", &[alice, bob], &mail("more"));
    assert!(more.starts_with("250 ") && more.contains(", "), "both mails are named: {more}");
    for to in [alice, bob] {
        let mut smtp = Smtp::connect(&chain);
        let fewer = smtp.send("s@elsewhere.example", &[to], &mail("fewer"));
        assert!(fewer.starts_with("250 "), "{fewer}");
        // It has heard that, for this recipient.
        smtp.command("QUIT");
    }
    clamd.resume();
    chain.settles();
    chain.books(&[("accepted", 4), ("stored", 4)]);
    for user in [alice, bob] {
        let mails = chain.read(user).into_iter().map(|mail| String::from_utf8(mail).unwrap());
        let mut subjects: Vec<_> =
            mails.map(|mail| mail.lines().find(|line| line.starts_with("Subject")).unwrap().to_owned()).collect();
        subjects.sort_unstable();
        assert_eq!(subjects, ["Subject: fewer", "Subject: more"], "{user}");
    }
}

/// A round that every check has passed waits for its store when accept is killed. The next round is rejected, and must
/// not be held beside it.
#[test]
fn what_was_cleared_is_not_held_as_well() {
    let clamd = Clamd::start();
    let lenient = [("/stages/score/junk", json!(1000)), ("/stages/score/reject", json!(1000))];
    let mut chain = Chain::start_parts_with(&clamd, &lenient);
    chain.kill("store");
    let spam = b"From: \"bank@bank.example\" <x@evil.example>\r\nFrom: y@evil.example\r\n\
                 Subject: WIN A MILLION NOW\r\n\r\nHello\r\n";
    let reply = Smtp::connect(&chain).send("x@evil.example", &["alice@example.org"], spam);
    assert!(reply.starts_with("250 "), "{reply}");
    let marks = chain.folder().join("var/journal/0000000001.marks");
    // Such a mark has the kind 9, and 27 bytes as that of a sender that has gone on.
    let is_cleared = |marks: Vec<u8>| marks.chunks(27).any(|mark| mark.get(2) == Some(&9));
    wait_for("it to be noted as cleared", || std::fs::read(&marks).is_ok_and(is_cleared));
    chain.kill("accept");
    chain.stop("score");
    chain.change("/stages/score/junk", &json!(0.5));
    chain.change("/stages/score/reject", &json!(0.6));
    chain.start("score");
    chain.start("accept");
    wait_for("the next round to be rejected", || chain.log("score").contains("outcome=\"reject\""));
    chain.start("store");
    chain.settles();
    assert_eq!((chain.read("alice@example.org").len(), chain.read("quarantine@example.org").len()), (1, 0));
    chain.books(&[("accepted", 1), ("stored", 1), ("held", 0)]);
}

/// What a device sends again looks the same each time, and the second alarm is no retry.
#[test]
fn a_mail_without_id_and_date_is_recognised_for_a_short_time_only() {
    let clamd = Clamd::start();
    let mut chain = Chain::start_parts_with(&clamd, &[("/stages/accept/journal/doubt_bare_for", json!("0s"))]);
    // Breaks off after the reply.
    let send = |chain: &Chain, body: &[u8]| {
        let reply = Smtp::connect(chain).send("ups@device.example", &["alice@example.org"], body);
        assert!(reply.starts_with("250 "), "{reply}");
        reply
    };
    let (bare, named) = (b"Subject: alarm\r\n\r\nfire\r\n", b"Subject: alarm\r\nMessage-ID: <1@x>\r\n\r\nfire\r\n");
    assert_eq!(send(&chain, named), send(&chain, named));
    assert_ne!(send(&chain, bare), send(&chain, bare));
    assert!(!chain.log("accept").contains("neither Message-ID"));
    chain.change("/stages/accept/journal/doubt_bare_for", &json!("10min"));
    chain.stop("accept");
    chain.start("accept");
    let third = send(&chain, bare);
    assert_eq!(third, send(&chain, bare));
    assert!(chain.log("accept").contains("neither Message-ID"));
    chain.settles();
    chain.books(&[("accepted", 3), ("stored", 3)]);
}

/// Brings a mail to the accept node at this port, as a gate would, and breaks off after the reply.
fn bring(port: u16, to: &[&str], body: &[u8]) -> String {
    let mut connected = None;
    wait_for("accept", || {
        connected = TcpStream::connect(("127.0.0.1", port)).ok();
        connected.is_some()
    });
    let mut stream = connected.unwrap();
    // The PROXY protocol's header of a gate that speaks for itself.
    stream.write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0").unwrap();
    let mut smtp = Smtp::raw(stream).unwrap();
    assert!(smtp.reply().unwrap().starts_with("220 ") && smtp.command("EHLO client.example").starts_with("250 "));
    smtp.send("s@elsewhere.example", to, body)
}

/// A sender that did not hear the one node goes to the other, with other recipients.
#[test]
fn what_another_node_has_of_a_mail_is_not_kept_again() {
    let clamd = Clamd::start();
    let [first, second] = [free_port(), free_port()];
    let listen = |port: u16| json!([format!("127.0.0.1:{port}")]);
    let mut chain = Chain::start_parts_with(&clamd, &[("/stages/accept/listen", listen(first))]);
    chain.start_node("accept", "node2", &[("/stages/accept/listen", listen(second))]);
    let [alice, bob] = ["alice@example.org", "bob@example.org"];
    let mail = |name: &str| format!("Subject: {name}\r\nMessage-ID: <{name}@x>\r\n\r\n{name}\r\n").into_bytes();
    let mut accepted = 0;
    // What is taken up before has two copies.
    wait_for("the nodes to know each other", || {
        let probe = mail(&format!("probe{accepted}"));
        let (here, there) = (bring(first, &[alice], &probe), bring(second, &[alice], &probe));
        assert!(here.starts_with("250 ") && there.starts_with("250 "), "{here} {there}");
        accepted += if here == there { 1 } else { 2 };
        here == there
    });
    let (probes, id) = (accepted, |reply: &str| reply.trim_end().rsplit(' ').next().unwrap().to_owned());
    let more = bring(first, &[alice], &mail("more"));
    let rest = bring(second, &[alice, bob], &mail("more"));
    assert!(rest.starts_with("250 ") && rest.contains(&format!("{}, ", id(&more))), "{more} {rest}");
    let fewer = bring(second, &[alice, bob], &mail("fewer"));
    assert_eq!(bring(first, &[bob], &mail("fewer")), fewer, "for one of two");
    // Neither answer would be safe while the one that may have it cannot say.
    chain.kill("accept");
    let unsure = bring(second, &[bob, alice], &mail("more"));
    assert!(unsure.starts_with("451 "), "{unsure}");
    chain.start("accept");
    chain.settles();
    chain.books(&[("accepted", probes + 4), ("stored", probes + 4)]);
    assert_eq!(chain.read(bob).len(), 2);
}
