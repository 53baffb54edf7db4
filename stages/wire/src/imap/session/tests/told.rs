//! What a client is told of what others have changed, and when.
#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn what_others_change_is_told_at_noop() {
    let (mut session, mut world) = (session(), World::new());
    run(&mut session, &mut world, b"1 LOGIN alice secret\r\n2 SELECT INBOX\r\n", usize::MAX);
    world.rows.remove(0);
    world.rows[0].flags = flags::SEEN;
    world.rows.push(MessageRow { uid: 25, flags: 0, keywords: Arc::default(), size: 1, received: 0, modseq: 1 });
    let heard = run(&mut session, &mut world, b"a NOOP\r\n", usize::MAX);
    assert_eq!(heard, "* 1 EXPUNGE\r\n* 1 FETCH (FLAGS (\\Seen))\r\n* 2 EXISTS\r\na OK NOOP done\r\n");
}

#[test]
fn an_idle_client_hears_what_is_new() {
    let (mut session, mut world) = (session(), World::new());
    let before = run(&mut session, &mut world, b"1 LOGIN alice secret\r\n2 SELECT INBOX\r\n", usize::MAX);
    assert!(before.contains("] logged in") && !session.wants_news());
    assert_eq!(run(&mut session, &mut world, b"a IDLE\r\n", usize::MAX), "+ idling\r\n");
    assert!(session.wants_news());
    session.news();
    assert_eq!(run(&mut session, &mut world, b"", 1), "", "nothing has changed");
    world.rows.remove(0);
    world.rows[0].flags = flags::SEEN;
    session.news();
    assert_eq!(run(&mut session, &mut world, b"", 1), "* 1 EXPUNGE\r\n* 1 FETCH (FLAGS (\\Seen))\r\n");
    assert_eq!(run(&mut session, &mut world, b"done\r\nb NOOP\r\n", 3), "a OK IDLE done\r\nb OK NOOP done\r\n");
    assert!(!session.wants_news());
    let heard = run(&mut session, &mut world, b"c IDLE\r\nd NOOP\r\ne NOOP\r\n", usize::MAX);
    assert_eq!(heard, "+ idling\r\nc BAD DONE was expected\r\ne OK NOOP done\r\n");
    for append in ["x APPEND INBOX {3}\r\n", "x APPEND INBOX {3+}\r\nabc\r\n", "x SELECT {5}\r\n"] {
        let heard = run(&mut session, &mut world, format!("f IDLE\r\n{append}g NOOP\r\n").as_bytes(), usize::MAX);
        assert_eq!(heard, "+ idling\r\nf BAD DONE was expected\r\ng OK NOOP done\r\n", "{append}");
    }
}

#[test]
fn a_fetch_ends_with_what_is_new_but_for_expunges() {
    let (mut session, mut world) = (session(), World::new());
    run(&mut session, &mut world, b"1 LOGIN alice secret\r\n2 SELECT INBOX\r\n", usize::MAX);
    let gone = world.rows.remove(0);
    world.rows[0].flags = flags::SEEN;
    let heard = run(&mut session, &mut world, b"a FETCH 1 UID\r\n", usize::MAX);
    assert_eq!(
        heard, "* 1 FETCH (UID 5)\r\n* 2 FETCH (FLAGS (\\Seen))\r\na OK FETCH done\r\n",
        "{gone:?} keeps its number"
    );
    assert_eq!(run(&mut session, &mut world, b"b NOOP\r\n", usize::MAX), "* 1 EXPUNGE\r\nb OK NOOP done\r\n");
}
