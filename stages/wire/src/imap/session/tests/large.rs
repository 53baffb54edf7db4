//! What is large or takes long: told in portions, said before, or refused.
#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn what_would_take_too_much_is_refused() {
    check("a SEARCH CHARSET KOI8-R TEXT x\r\n", "a NO [BADCHARSET (US-ASCII UTF-8)] this charset is not known\r\n");
    check("a SEARCH CHARSET utf-8 SUBJECT TWO\r\n", "* SEARCH 2\r\na OK SEARCH done\r\n");
    check("a SEARCH SENTSINCE 1-Jan-2020\r\n", "* SEARCH\r\na OK SEARCH done\r\n");
    check(&format!("a SEARCH{}\r\n", " BODY x".repeat(51)), "a NO [LIMIT] too many criteria that ask for texts\r\n");
    check(&format!("a FETCH 1 (UID{})\r\n", " UID".repeat(200)), "* 1 FETCH (UID 5)\r\na OK FETCH done\r\n");
    let pieces: String = (0..101).map(|at| format!(" BODY.PEEK[]<{at}.1>")).collect();
    check(&format!("a FETCH 1 (UID{pieces})\r\n"), "a NO [LIMIT] at most 100 items\r\n");
    let long = "x".repeat(200);
    check(
        &format!("a LIST \"\" (a{})\r\n", format!(" {long}").repeat(6)),
        "a NO [LIMIT] the patterns are too long\r\n",
    );
    check(
        "a STATUS INBOX (UIDNEXT UIDNEXT MESSAGES UIDNEXT)\r\n",
        "* STATUS \"INBOX\" (UIDNEXT 16 MESSAGES 2)\r\na OK STATUS done\r\n",
    );
    let names: String = (0..51).map(|at| format!(" x{at}")).collect();
    let fields = format!("BODY.PEEK[HEADER.FIELDS (b{names})] BODY.PEEK[2.HEADER.FIELDS.NOT (c{names})]");
    check(&format!("a FETCH 1 ({fields})\r\n"), "a NO [LIMIT] at most 100 names of fields\r\n");
    let keywords: String = (0..51).map(|at| format!(" k{at}")).collect();
    check(
        &format!("a STORE 1 +FLAGS (x{keywords})\r\n"),
        "a NO [LIMIT] at most 50 keywords of at most 64 bytes, 1000 in all\r\n",
    );
}

#[test]
fn a_response_far_larger_than_its_message_is_not_made() {
    let text = format!("A: b\r\n\r\n{}\r\n", "x".repeat(1 << 20));
    let row = World::new().rows.remove(0);
    let items: Vec<Item<'static>> = (1..=20)
        .map(|at| Item::BodyExt { section: None, partial: Some((0, (900_000 + at).try_into().unwrap())), peek: true })
        .collect();
    let source = crate::imap::fetch::Source::Text(text.into());
    assert!(crate::imap::fetch::response(1, &row, &items, &source).is_err());
    assert!(crate::imap::fetch::response(1, &row, &items[..4], &source).is_ok());
}

#[test]
fn a_large_mailbox_is_told_in_portions() {
    let (mut session, mut world) = (session(), World::new());
    let row = world.rows[0].clone();
    world.rows = (1..=2500).map(|uid| MessageRow { uid, ..row.clone() }).collect();
    run(&mut session, &mut world, b"1 LOGIN alice secret\r\n2 SELECT INBOX\r\n", usize::MAX);
    session.input(b"a FETCH 1:* (UID)\r\n");
    let (mut heard, mut most) = (0, 0);
    loop {
        match session.next() {
            Step::Output(_) => heard += 1,
            Step::Ask(question) => session.answer(world.answer(question)),
            _ => break,
        }
        most = most.max(session.output.len());
    }
    assert!(heard == 2501 && most < 1000, "{heard} lines, {most} of them at once");
}

#[test]
fn what_takes_long_is_said_before() {
    let (mut session, mut world) = (session(), World::new());
    let row = world.rows[0].clone();
    world.rows = (1..=30_000).map(|uid| MessageRow { uid, ..row.clone() }).collect();
    run(&mut session, &mut world, b"1 LOGIN alice secret\r\n2 SELECT INBOX\r\n", usize::MAX);
    world.own = Some(Box::leak(format!("To: {}\r\n", "x".repeat(990)).repeat(2200).into_boxed_str()));
    for (said, want) in [
        ("SORT (ARRIVAL) UTF-8 ALL", true),
        ("SORT (SUBJECT) UTF-8 1:3", true),
        ("SEARCH ALL", false),
        ("FETCH 1 BODY.PEEK[1]", true),
        ("FETCH 1 BODY.PEEK[HEADER]", true),
        ("FETCH 1 ENVELOPE", true),
        ("FETCH 1 FLAGS", false),
        ("FETCH 1 BODY.PEEK[]", false),
    ] {
        session.input(format!("a {said}\r\n").as_bytes());
        let mut takes_long = false;
        loop {
            takes_long |= session.takes_long();
            match session.next() {
                Step::Output(_) => {}
                Step::Ask(question) => session.answer(world.answer(question)),
                _ => break,
            }
        }
        assert_eq!(takes_long, want, "{said}");
    }
}

#[test]
fn many_changes_are_told_in_portions() {
    let (mut session, mut world) = (session(), World::new());
    let row = world.rows[0].clone();
    world.rows = (1..=5000).map(|uid| MessageRow { uid, ..row.clone() }).collect();
    run(&mut session, &mut world, b"1 LOGIN alice secret\r\n2 SELECT INBOX\r\n", usize::MAX);
    world.rows.drain(..2500);
    world.rows.iter_mut().for_each(|row| row.flags = flags::SEEN);
    world.rows.push(MessageRow { uid: 5001, ..row });
    session.input(b"a NOOP\r\n");
    let (mut heard, mut most) = (Vec::new(), 0);
    loop {
        match session.next() {
            Step::Output(bytes) => {
                most = most.max(bytes.len());
                heard.extend_from_slice(&bytes);
            }
            Step::Ask(question) => session.answer(world.answer(question)),
            _ => break,
        }
    }
    let heard = String::from_utf8(heard).unwrap();
    let lines: Vec<&str> = heard.lines().collect();
    assert_eq!(lines.len(), 2500 + 2500 + 2);
    assert!(lines[..2500].iter().all(|line| *line == "* 1 EXPUNGE"));
    assert_eq!(lines[2500], "* 1 FETCH (FLAGS (\\Seen))");
    assert_eq!(lines[5000..], ["* 2501 EXISTS", "a OK NOOP done"]);
    assert!(most < 100 * 1000, "{most} bytes at once");
}
