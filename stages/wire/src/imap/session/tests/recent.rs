//! Messages that are recent: for the one session that is told of them first.

use super::*;

/// What two sessions hear in turn, both in the INBOX of one world. The first word is the session's number. `+` brings a
/// message in first.
#[track_caller]
fn hear(lines: &[(&str, &str)]) {
    let mut world = World::new();
    world.recent = 1;
    let mut sessions = [session(), session()];
    for session in &mut sessions {
        run(session, &mut world, b"1 LOGIN alice secret\r\n", usize::MAX);
    }
    // The world knows one session: who looks is who asked last.
    let mut takes = [false, false];
    for (said, want) in lines {
        let said = match said.strip_prefix('+') {
            Some(said) => {
                let uid = world.uidnext;
                (world.uidnext, world.modseq) = (uid + 10, world.modseq + 1);
                world.rows.push(MessageRow { uid, modseq: world.modseq, ..world.rows[0].clone() });
                said
            }
            None => said,
        };
        let (number, said) = said.split_once(' ').unwrap();
        let at = number.parse::<usize>().unwrap() - 1;
        world.takes = takes[at];
        let heard = run(&mut sessions[at], &mut world, format!("a {said}\r\n").as_bytes(), usize::MAX);
        takes[at] = world.takes;
        let heard: Vec<&str> = heard.lines().filter(|line| line.starts_with(['a', '*'])).collect();
        let heard: Vec<&str> = match heard.iter().position(|line| line.ends_with(" RECENT")) {
            Some(at) if heard.len() > 6 => vec![heard[at]],
            _ => heard,
        };
        assert_eq!(heard, want.lines().collect::<Vec<_>>(), "{number} {said}");
    }
}

#[test]
fn new_messages_are_recent_for_one_session() {
    hear(&[
        ("1 STATUS INBOX (RECENT)", "* STATUS \"INBOX\" (RECENT 2)\na OK STATUS done"),
        ("2 EXAMINE INBOX", "* 2 RECENT"),
        ("1 SELECT INBOX", "* 2 RECENT"),
        ("1 STATUS INBOX (RECENT)", "* STATUS \"INBOX\" (RECENT 0)\na OK STATUS done"),
        ("1 FETCH 1 FLAGS", "* 1 FETCH (FLAGS (\\Recent))\na OK FETCH done"),
        ("1 STORE 1 +FLAGS (\\Seen)", "* 1 FETCH (FLAGS (\\Seen \\Recent))\na OK STORE done"),
        ("2 NOOP", "* 1 FETCH (FLAGS (\\Seen \\Recent))\na OK NOOP done"),
        ("2 SELECT INBOX", "* 0 RECENT"),
        ("+2 NOOP", "* 3 EXISTS\n* 1 RECENT\na OK NOOP done"),
        ("1 NOOP", "* 3 EXISTS\na OK NOOP done"),
        ("+1 NOOP", "* 4 EXISTS\n* 3 RECENT\na OK NOOP done"),
        (
            "2 FETCH 1:4 FLAGS",
            "* 1 FETCH (FLAGS (\\Seen))\n* 2 FETCH (FLAGS ())\n* 3 FETCH (FLAGS (\\Seen \\Recent))\n* 4 EXISTS\n\
             a OK FETCH done",
        ),
        (
            "1 UID FETCH 1:* FLAGS",
            "* 1 FETCH (UID 5 FLAGS (\\Seen \\Recent))\n* 2 FETCH (UID 15 FLAGS (\\Recent))\n\
             * 3 FETCH (UID 16 FLAGS (\\Seen))\n* 4 FETCH (UID 26 FLAGS (\\Seen \\Recent))\na OK FETCH done",
        ),
        ("1 SELECT INBOX", "* 0 RECENT"),
    ]);
}

#[test]
fn recent_messages_are_searched_for() {
    hear(&[
        ("1 SELECT INBOX", "* 2 RECENT"),
        ("1 STORE 1 +FLAGS.SILENT (\\Seen)", "a OK STORE done"),
        ("+2 SELECT INBOX", "* 1 RECENT"),
        ("1 NOOP", "* 3 EXISTS\na OK NOOP done"),
        ("1 SEARCH RECENT", "* SEARCH 1 2\na OK SEARCH done"),
        ("1 SEARCH NEW", "* SEARCH 2\na OK SEARCH done"),
        ("1 SEARCH OLD", "* SEARCH 3\na OK SEARCH done"),
        ("1 SEARCH NOT NEW SUBJECT one", "* SEARCH 1\na OK SEARCH done"),
        ("2 SEARCH RECENT", "* SEARCH 3\na OK SEARCH done"),
    ]);
}

#[test]
fn an_expunge_is_told_with_what_is_still_recent() {
    hear(&[
        ("1 SELECT INBOX", "* 2 RECENT"),
        ("1 STORE 1 +FLAGS.SILENT (\\Deleted)", "a OK STORE done"),
        ("1 EXPUNGE", "* 1 EXPUNGE\n* 1 RECENT\na OK EXPUNGE done"),
        ("1 NOOP", "a OK NOOP done"),
    ]);
}

#[test]
fn nobody_makes_a_message_recent() {
    hear(&[
        ("1 SELECT INBOX", "* 2 RECENT"),
        ("1 STORE 1 FLAGS (\\Recent)", "a BAD this system flag is not known"),
        ("1 STORE 1 -FLAGS (\\Recent)", "a BAD this system flag is not known"),
    ]);
}

/// RFC 9051 appendix E. What it does not take is left for those who know of it.
#[test]
fn imap4rev2_knows_nothing_of_it() {
    hear(&[
        ("1 ENABLE IMAP4rev2", "* ENABLED IMAP4rev2\na OK ENABLE done"),
        (
            "1 SELECT INBOX",
            "* 2 EXISTS\n* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\n* OK [PERMANENTFLAGS (\\Answered \
             \\Flagged \\Deleted \\Seen \\Draft \\*)] flags that are kept\n* LIST () \"/\" \"INBOX\"\n\
             * OK [UIDVALIDITY 7] as long as UIDs hold\n* OK [UIDNEXT 16] the next UID\n* OK [HIGHESTMODSEQ 1] of all \
             changes so far\na OK [READ-WRITE] SELECT done",
        ),
        ("1 FETCH 1 FLAGS", "* 1 FETCH (FLAGS ())\na OK FETCH done"),
        ("1 STATUS INBOX (RECENT)", "* STATUS \"INBOX\" (RECENT 0)\na OK STATUS done"),
        ("+1 NOOP", "* 3 EXISTS\na OK NOOP done"),
        ("2 SELECT INBOX", "* 3 RECENT"),
    ]);
}
