//! CONDSTORE and QRESYNC, and what several sessions are told of each other's changes.

use super::*;

/// What a client says, after others have changed something, and what it hears.
type Line<'a> = (&'a str, fn(&mut World), &'a str);

/// What a client hears that has enabled this and selected INBOX, where others change something after each line.
#[track_caller]
fn hears(enable: &str, dialogue: &[Line]) {
    let (mut session, mut world) = (session(), World::new());
    let said = format!("1 LOGIN alice secret\r\n2 ENABLE {enable}\r\n3 SELECT INBOX\r\n");
    let before = run(&mut session, &mut world, said.as_bytes(), usize::MAX);
    assert!(
        before.contains(&format!("* ENABLED {enable}\r\n2 OK ")) && before.contains("* OK [HIGHESTMODSEQ 1]"),
        "{before}"
    );
    for (say, change, want) in dialogue {
        change(&mut world);
        assert_eq!(run(&mut session, &mut world, format!("{say}\r\n").as_bytes(), usize::MAX), *want, "{say}");
    }
}

fn flag_first(world: &mut World) {
    world.modseq += 1;
    world.rows[0].flags = flags::FLAGGED;
    world.rows[0].modseq = world.modseq;
}

fn nothing(_: &mut World) {}

#[test]
fn changes_have_their_modseq_with_condstore() {
    hears(
        "CONDSTORE",
        &[
            ("a NOOP", flag_first, "* 1 FETCH (FLAGS (\\Flagged) MODSEQ (2))\r\na OK NOOP done\r\n"),
            (
                "b FETCH 1:2 (MODSEQ)",
                nothing,
                "* 1 FETCH (MODSEQ (2))\r\n* 2 FETCH (MODSEQ (1))\r\nb OK FETCH done\r\n",
            ),
            (
                "c UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1)",
                nothing,
                "* 1 FETCH (UID 5 FLAGS (\\Flagged) MODSEQ (2))\r\nc OK FETCH done\r\n",
            ),
            (
                "d STORE 1:2 (UNCHANGEDSINCE 1) +FLAGS.SILENT (\\Seen)",
                nothing,
                "* 2 FETCH (MODSEQ (3))\r\nd OK [MODIFIED 1] the others were changed\r\n",
            ),
            (
                "e UID STORE 5,15 (UNCHANGEDSINCE 3) +FLAGS (\\Deleted)",
                nothing,
                "* 1 FETCH (UID 5 FLAGS (\\Flagged \\Deleted) MODSEQ (4))\r\n* 2 FETCH (UID 15 FLAGS (\\Seen \
                 \\Deleted) MODSEQ (4))\r\ne OK STORE done\r\n",
            ),
            ("f EXPUNGE", nothing, "* 1 EXPUNGE\r\n* 1 EXPUNGE\r\nf OK [HIGHESTMODSEQ 5] EXPUNGE done\r\n"),
            ("g STATUS INBOX (HIGHESTMODSEQ)", nothing, "* STATUS \"INBOX\" (HIGHESTMODSEQ 5)\r\ng OK STATUS done\r\n"),
            (
                "h UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)",
                nothing,
                "h BAD VANISHED goes with UID FETCH, CHANGEDSINCE and ENABLE QRESYNC\r\n",
            ),
            (
                "i SELECT INBOX (QRESYNC (7 1))",
                nothing,
                "* OK [CLOSED] what follows is of another mailbox\r\ni BAD enable QRESYNC first\r\n",
            ),
        ],
    );
}

#[test]
fn what_went_is_told_by_uid_with_qresync() {
    fn remove_first(world: &mut World) {
        world.modseq += 1;
        let row = world.rows.remove(0);
        world.gone.push((row.uid, world.modseq));
    }
    fn forget(world: &mut World) {
        world.forgetful = true;
    }
    let opened = |vanished: &str, rows: &str| {
        format!(
            "* OK [CLOSED] what follows is of another mailbox\r\n* 1 EXISTS\r\n* 0 RECENT\r\n\
             * FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n* OK [PERMANENTFLAGS (\\Answered \\Flagged \
             \\Deleted \\Seen \\Draft \\*)] flags that are kept\r\n* OK [UNSEEN 1] the first that is not seen\r\n\
             * OK [UIDVALIDITY 7] as long as UIDs hold\r\n* OK [UIDNEXT 16] the next UID\r\n* OK [HIGHESTMODSEQ 3] of \
             all changes so far\r\n{vanished}{rows}x OK [READ-WRITE] SELECT done\r\n"
        )
    };
    let flagged = "* 1 FETCH (UID 15 FLAGS (\\Flagged) MODSEQ (3))\r\n";
    hears(
        "QRESYNC",
        &[
            ("a NOOP", remove_first, "* VANISHED 5\r\na OK NOOP done\r\n"),
            ("b NOOP", flag_first, "* 1 FETCH (UID 15 FLAGS (\\Flagged) MODSEQ (3))\r\nb OK NOOP done\r\n"),
            (
                "c UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)",
                nothing,
                "* VANISHED (EARLIER) 5\r\n* 1 FETCH (UID 15 FLAGS (\\Flagged) MODSEQ (3))\r\nc OK FETCH done\r\n",
            ),
            ("x SELECT INBOX (QRESYNC (7 1))", nothing, &opened("* VANISHED (EARLIER) 5\r\n", flagged)),
            ("x SELECT INBOX (QRESYNC (7 2))", nothing, &opened("", flagged)),
            ("x SELECT INBOX (QRESYNC (7 1 1:4))", nothing, &opened("", "")),
            ("x SELECT INBOX (QRESYNC (6 1))", nothing, &opened("", "")),
            ("x SELECT INBOX (QRESYNC (7 1))", forget, &opened("* VANISHED (EARLIER) 1:14\r\n", flagged)),
        ],
    );
}

/// The UIDs up to `*` ended at the last message that was left, so that a client kept those behind it.
#[test]
fn what_went_from_the_end_is_told_too() {
    fn remove_last(world: &mut World) {
        world.modseq += 1;
        let row = world.rows.remove(world.rows.len() - 1);
        world.gone.push((row.uid, world.modseq));
    }
    fn forget(world: &mut World) {
        world.forgetful = true;
    }
    let all = "UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)";
    hears(
        "QRESYNC",
        &[
            ("a NOOP", remove_last, "* VANISHED 15\r\na OK NOOP done\r\n"),
            (&format!("b {all}"), nothing, "* VANISHED (EARLIER) 15\r\nb OK FETCH done\r\n"),
            ("c NOOP", remove_last, "* VANISHED 5\r\nc OK NOOP done\r\n"),
            (&format!("d {all}"), nothing, "* VANISHED (EARLIER) 5,15\r\nd OK FETCH done\r\n"),
            (&format!("e {all}"), forget, "* VANISHED (EARLIER) 1:15\r\ne OK FETCH done\r\n"),
        ],
    );
}

/// RFC 7162 section 3.2.10: while an expunge waits to be told, numbers are those that the client knows.
#[test]
fn numbers_are_the_clients_while_an_expunge_waits() {
    fn remove_first(world: &mut World) {
        world.modseq += 1;
        let row = world.rows.remove(0);
        world.gone.push((row.uid, world.modseq));
    }
    hears(
        "QRESYNC",
        &[
            (
                "a STORE 2 +FLAGS (\\Flagged)",
                remove_first,
                "* 2 FETCH (UID 15 FLAGS (\\Flagged) MODSEQ (3))\r\na OK STORE done\r\n",
            ),
            // What is gone is stored nowhere, and above all not on what has its number by now.
            ("b STORE 1 +FLAGS (\\Deleted)", nothing, "b OK STORE done\r\n"),
            (
                "c STORE 1:2 (UNCHANGEDSINCE 2) +FLAGS (\\Deleted)",
                nothing,
                "c OK [MODIFIED 2] the others were changed\r\n",
            ),
            ("d STORE * +FLAGS.SILENT (\\Seen)", nothing, "* 2 FETCH (UID 15 MODSEQ (6))\r\nd OK STORE done\r\n"),
            ("e NOOP", nothing, "* VANISHED 5\r\ne OK NOOP done\r\n"),
            (
                "f STORE 1 -FLAGS (\\Flagged)",
                nothing,
                "* 1 FETCH (UID 15 FLAGS (\\Seen) MODSEQ (7))\r\nf OK STORE done\r\n",
            ),
        ],
    );
}

/// A client that keeps what it knows up to the highest MODSEQ would never hear of what went before it.
#[test]
fn no_modseq_is_told_before_an_expunge_below_it() {
    fn remove_first_and_flag_the_next(world: &mut World) {
        world.modseq += 1;
        let row = world.rows.remove(0);
        world.gone.push((row.uid, world.modseq));
        flag_first(world);
        world.rows.push(MessageRow { uid: 25, modseq: 3, ..row });
    }
    hears(
        "QRESYNC",
        &[
            ("a FETCH 2 (UID)", remove_first_and_flag_the_next, "* 2 FETCH (UID 15)\r\na OK FETCH done\r\n"),
            ("b SEARCH ALL", nothing, "* SEARCH 1 2\r\nb OK SEARCH done\r\n"),
            (
                "c NOOP",
                nothing,
                "* VANISHED 5\r\n* 1 FETCH (UID 15 FLAGS (\\Flagged) MODSEQ (3))\r\n* 2 EXISTS\r\nc OK NOOP done\r\n",
            ),
        ],
    );
}

#[test]
fn whoever_asks_for_modseq_hears_where_it_begins() {
    let highest = "* OK [HIGHESTMODSEQ 1] of all changes so far\r\n";
    for (said, want) in [
        ("a FETCH 1 (MODSEQ)", "* 1 FETCH (MODSEQ (1))\r\na OK FETCH done\r\n"),
        ("a STATUS INBOX (HIGHESTMODSEQ)", "* STATUS \"INBOX\" (HIGHESTMODSEQ 1)\r\na OK STATUS done\r\n"),
        ("a SEARCH MODSEQ 1", "* SEARCH 1 2 (MODSEQ 1)\r\na OK SEARCH done\r\n"),
    ] {
        check(&format!("{said}\r\n{said}\r\n"), &format!("{highest}{want}{want}"));
    }
}

/// Nobody has all of a large mailbox written at once for a client that may take it slowly.
#[test]
fn what_has_changed_is_told_in_portions() {
    let (mut session, mut world) = (session(), World::new());
    let row = world.rows[0].clone();
    world.modseq = 9;
    world.rows = (1..=5000).map(|uid| MessageRow { uid, modseq: 9, ..row.clone() }).collect();
    run(&mut session, &mut world, b"1 LOGIN alice secret\r\n2 ENABLE QRESYNC\r\n", usize::MAX);
    session.input(b"3 SELECT INBOX (QRESYNC (7 1))\r\n");
    let (mut most, mut heard) = (0, 0);
    let end = loop {
        most = most.max(session.output.len());
        match session.next() {
            Step::Output(bytes) if bytes.starts_with(b"3 ") => break bytes,
            Step::Output(bytes) => heard += usize::from(bytes.ends_with(b" FLAGS () MODSEQ (9))\r\n")),
            Step::Ask(question) => session.answer(world.answer(question)),
            _ => panic!("it did not end"),
        }
    };
    assert_eq!((heard, &end[..]), (5000, &b"3 OK [READ-WRITE] SELECT done\r\n"[..]));
    assert!(most < 1100, "{most} lines were written at once");
}

/// Whatever two sessions change by turns, what each is told adds up to the mailbox.
fn follow(told: &mut Vec<u32>, heard: &str) {
    for line in heard.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["*", number, "EXPUNGE"] => drop(told.remove(number.parse::<usize>().unwrap() - 1)),
            ["*", "VANISHED", set] => {
                let set = crate::imap::set::Set::new(&(*set).try_into().unwrap(), 0);
                told.retain(|uid| !set.contains(*uid));
            }
            ["*", count, "EXISTS"] => told.resize(count.parse().unwrap(), 0),
            ["*", number, "FETCH", "(UID", uid, ..] => {
                told[number.parse::<usize>().unwrap() - 1] = uid.trim_end_matches(')').parse().unwrap();
            }
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn what_two_sessions_are_told_adds_up_to_the_mailbox(
        acts in proptest::collection::vec((0usize..2, 0usize..7, 1u32..6), 0..25),
        qresync: bool,
    ) {
        let mut world = World::new();
        let mut sessions = [session(), session()];
        let mut told = [vec![5, 15], vec![5, 15]];
        for (number, session) in sessions.iter_mut().enumerate() {
            let enable = if qresync && number == 1 { "2 ENABLE QRESYNC\r\n" } else { "" };
            let said = format!("1 LOGIN alice secret\r\n{enable}3 SELECT INBOX\r\n");
            run(session, &mut world, said.as_bytes(), usize::MAX);
        }
        for (who, what, number) in acts {
            let say = match what {
                0 => format!("a STORE {number} +FLAGS (\\Deleted)"),
                1 => "a EXPUNGE".to_owned(),
                2 => "a NOOP".to_owned(),
                3 => "a FETCH 1:* (UID)".to_owned(),
                4 => format!("a STORE {number} FLAGS.SILENT (\\Seen)"),
                5 => "a IDLE\r\nDONE".to_owned(),
                _ => {
                    world.modseq += 1;
                    let (uid, modseq) = (100 + u32::try_from(world.modseq).unwrap(), world.modseq);
                    let row = World::new().rows.remove(0);
                    world.rows.push(MessageRow { uid, modseq, ..row });
                    continue;
                }
            };
            let heard = run(&mut sessions[who], &mut world, format!("{say}\r\n").as_bytes(), usize::MAX);
            follow(&mut told[who], &heard);
            // As clients do that are told of VANISHED: it asks for the UIDs of what is new.
            if told[who].contains(&0) {
                let heard = run(&mut sessions[who], &mut world, b"b FETCH 1:* (UID)\r\n", usize::MAX);
                follow(&mut told[who], &heard);
            }
        }
        for (session, told) in sessions.iter_mut().zip(&mut told) {
            for say in ["a NOOP\r\n", "b FETCH 1:* (UID)\r\n"] {
                let heard = run(session, &mut world, say.as_bytes(), usize::MAX);
                follow(told, &heard);
            }
            let uids: Vec<u32> = world.rows.iter().map(|row| row.uid).collect();
            prop_assert_eq!(&*told, &uids);
            let rows = &session.selected.as_ref().unwrap().messages;
            prop_assert_eq!(rows.iter().cloned().collect::<Vec<_>>(), world.rows.clone());
        }
    }
}
