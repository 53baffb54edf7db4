//! Dialogues about searching, in the world of the session's tests.
#![allow(clippy::unwrap_used)]

use super::search::BATCH;
use super::tests::{World, check, run, session};
use super::*;
use crate::imap::{MessageRow, Outline};

#[test]
fn what_is_asked_for_is_returned() {
    check(
        "a SEARCH RETURN (MIN MAX COUNT ALL) ALL\r\n",
        "* ESEARCH (TAG \"a\") MIN 1 MAX 2 ALL 1:2 COUNT 2\r\na OK SEARCH done\r\n",
    );
    check("a UID SEARCH RETURN () ALL\r\n", "* ESEARCH (TAG \"a\") UID ALL 5,15\r\na OK SEARCH done\r\n");
    check("a SEARCH RETURN (MIN MAX ALL) DELETED\r\n", "* ESEARCH (TAG \"a\")\r\na OK SEARCH done\r\n");
    check(
        "a SEARCH RETURN (COUNT) CHARSET UTF-8 BODY nothing\r\n",
        "* ESEARCH (TAG \"a\") COUNT 0\r\na OK SEARCH done\r\n",
    );
    check(
        "a UID SEARCH RETURN (MIN) BODY {6}\r\nsecond\r\n",
        "+ go on\r\n* ESEARCH (TAG \"a\") UID MIN 15\r\na OK SEARCH done\r\n",
    );
    check("a SEARCH RETURN (MANY) ALL\r\n", "a BAD the command cannot be read\r\n");
}

#[test]
fn the_highest_modseq_is_told_when_it_is_asked_for() {
    let hears = |said: &str, want: &str| {
        check(said, &format!("* OK [HIGHESTMODSEQ 1] of all changes so far\r\n{want}"));
    };
    hears("a SEARCH MODSEQ 1\r\n", "* SEARCH 1 2 (MODSEQ 1)\r\na OK SEARCH done\r\n");
    hears("a SEARCH MODSEQ 2\r\n", "* SEARCH\r\na OK SEARCH done\r\n");
    hears(
        "a SEARCH MODSEQ 2\r\nb STORE 1 +FLAGS (\\Seen)\r\n",
        "* SEARCH\r\na OK SEARCH done\r\n* 1 FETCH (FLAGS (\\Seen) MODSEQ (2))\r\nb OK STORE done\r\n",
    );
    hears("a SEARCH RETURN (MIN) NOT MODSEQ 2\r\n", "* ESEARCH (TAG \"a\") MIN 1 MODSEQ 1\r\na OK SEARCH done\r\n");
}

#[test]
fn what_was_saved_stands_for_its_messages() {
    let fetched = "* 2 FETCH (UID 15)\r\n";
    check(
        "a SEARCH RETURN (SAVE) SUBJECT two\r\nb FETCH $ (UID)\r\nc UID FETCH $ UID\r\nd SEARCH NOT $\r\n\
         e UID SEARCH UID $\r\n",
        &format!(
            "a OK SEARCH done\r\n{fetched}b OK FETCH done\r\n{fetched}c OK FETCH done\r\n* SEARCH 1\r\n\
             d OK SEARCH done\r\n* SEARCH 15\r\ne OK SEARCH done\r\n"
        ),
    );
    check(
        "a SEARCH RETURN (SAVE MIN COUNT) ALL\r\nb SEARCH RETURN (SAVE MAX) $\r\nc SEARCH $\r\n",
        "* ESEARCH (TAG \"a\") MIN 1 COUNT 2\r\na OK SEARCH done\r\n* ESEARCH (TAG \"b\") MAX 2\r\nb OK SEARCH done\r\n\
         * SEARCH 2\r\nc OK SEARCH done\r\n",
    );
    // Nothing was saved, or it failed, or it was expunged.
    check("a FETCH $ UID\r\nb SEARCH $\r\n", "a OK FETCH done\r\n* SEARCH\r\nb OK SEARCH done\r\n");
    let too_many = " TEXT x".repeat(51);
    check(
        &format!("a SEARCH RETURN (SAVE) ALL\r\nb SEARCH RETURN (SAVE){too_many}\r\nc SEARCH $\r\n"),
        "a OK SEARCH done\r\nb NO [LIMIT] too many criteria that ask for texts\r\n* SEARCH\r\nc OK SEARCH done\r\n",
    );
    check(
        "a SEARCH RETURN (SAVE) ALL\r\nb STORE 1 +FLAGS.SILENT (\\Deleted)\r\nc EXPUNGE\r\nd FETCH $ UID\r\n",
        "a OK SEARCH done\r\nb OK STORE done\r\n* 1 EXPUNGE\r\nc OK EXPUNGE done\r\n* 1 FETCH (UID 15)\r\n\
         d OK FETCH done\r\n",
    );
}

#[test]
fn much_work_is_left_to_the_world() {
    let (mut session, mut world) = (session(), World::new());
    let row = world.rows[0].clone();
    world.rows = (1..=10_000).map(|uid| MessageRow { uid, ..row.clone() }).collect();
    run(&mut session, &mut world, b"1 LOGIN alice secret\r\n2 SELECT INBOX\r\n", usize::MAX);
    let few = run(&mut session, &mut world, b"a SEARCH RETURN (COUNT) UNSEEN\r\n", usize::MAX);
    assert_eq!(few, "* ESEARCH (TAG \"a\") COUNT 10000\r\na OK SEARCH done\r\n");
    session.input(format!("a SEARCH RETURN (MIN COUNT){}\r\n", " UNSEEN".repeat(1000)).as_bytes());
    for batch in 0..10 {
        let Step::Ask(Question::Search { asked, .. }) = session.next() else { panic!("it was done at once") };
        assert_eq!(asked.len(), BATCH);
        session.answer(Answer::Found(vec![batch + 7]));
    }
    let end = run(&mut session, &mut world, b"", usize::MAX);
    assert_eq!(end, "* ESEARCH (TAG \"a\") MIN 7 COUNT 10\r\na OK SEARCH done\r\n");
}

#[test]
fn what_is_found_is_told_in_order() {
    check("a SORT (REVERSE SUBJECT) UTF-8 ALL\r\n", "* SORT 2 1\r\na OK SORT done\r\n");
    check("a UID SORT (FROM REVERSE SIZE) US-ASCII UNSEEN\r\n", "* SORT 15 5\r\na OK SORT done\r\n");
    check("a UID SORT (REVERSE ARRIVAL) UTF-8 ALL\r\n", "* SORT 5 15\r\na OK SORT done\r\n");
    check("a SORT (SUBJECT) UTF-8 SEEN\r\n", "* SORT\r\na OK SORT done\r\n");
    check("a SORT (SUBJECT) KOI8-R ALL\r\n", "a NO [BADCHARSET (US-ASCII UTF-8)] this charset is not known\r\n");
    check(
        "a SORT RETURN (MIN MAX ALL COUNT SAVE) (REVERSE SUBJECT) UTF-8 ALL\r\nb SEARCH $\r\n",
        "* ESEARCH (TAG \"a\") MIN 2 MAX 1 ALL 2,1 COUNT 2\r\na OK SORT done\r\n* SEARCH 1 2\r\nb OK SEARCH done\r\n",
    );
}

#[test]
fn what_is_found_is_told_as_threads() {
    check("a THREAD REFERENCES UTF-8 ALL\r\n", "* THREAD (1)(2)\r\na OK THREAD done\r\n");
    check("a UID THREAD ORDEREDSUBJECT UTF-8 BODY second\r\n", "* THREAD (15)\r\na OK THREAD done\r\n");
    check("a THREAD REFERENCES UTF-8 SEEN\r\n", "* THREAD\r\na OK THREAD done\r\n");
    check("a THREAD NONE UTF-8 ALL\r\n", "a BAD this algorithm is not known\r\n");
}

/// Ten terms could not be read, and clients let their users ask for any of many.
#[test]
fn any_of_many_terms_is_searched_for() {
    let any = |terms: usize| format!("{}TEXT second", "OR TEXT nothing ".repeat(terms - 1));
    for command in ["SEARCH", "SEARCH RETURN (ALL)", "SEARCH CHARSET UTF-8"] {
        let told = if command.contains("RETURN") { "ESEARCH (TAG \"a\") ALL 2" } else { "SEARCH 2" };
        check(&format!("a {command} {}\r\n", any(40)), &format!("* {told}\r\na OK SEARCH done\r\n"));
    }
    check(&format!("a SORT (DATE) UTF-8 {}\r\n", any(20)), "* SORT 2\r\na OK SORT done\r\n");
    for terms in [60, 2000] {
        check(&format!("a SEARCH {}\r\n", any(terms)), "a NO [LIMIT] the criteria are nested too deep\r\n");
    }
    check(&format!("a SEARCH {}SEEN\r\n", "OR SEEN ".repeat(12) + "XYZ "), "a BAD the command cannot be read\r\n");
}

/// It took a kilobyte for each key of each message, whatever that was together.
#[test]
fn what_is_put_in_order_asks_for_room() {
    let hear = |most: u64| {
        let (mut session, mut world) = (session(), World::new());
        let row = world.rows[0].clone();
        world.rows = (1..=60).map(|uid| MessageRow { uid, ..row.clone() }).collect();
        run(&mut session, &mut world, b"1 LOGIN alice secret\r\n2 SELECT INBOX\r\n", usize::MAX);
        session.input(b"a THREAD REFERENCES UTF-8 ALL\r\n");
        let (mut asked, mut said, mut references) = (Vec::new(), String::new(), 0..);
        loop {
            match session.next() {
                Step::Output(bytes) => said.push_str(std::str::from_utf8(&bytes).unwrap()),
                Step::Ask(Question::Outlines(uids)) => {
                    let ids = references.by_ref().take(100).map(|id| format!("<{id:01000}>\r\n "));
                    let text = format!("References: {}\r\n\r\n", ids.collect::<String>());
                    session.answer(Answer::Outlines(1, vec![(uids[0], Outline::of(text.as_bytes()))]));
                }
                Step::Ask(Question::Gather(bytes)) => {
                    asked.push(bytes);
                    session.answer(if bytes > most { Answer::Refused } else { Answer::Done });
                }
                Step::Ask(question) => session.answer(world.answer(question)),
                _ => return (asked, said),
            }
        }
    };
    let (asked, said) = hear(1 << 40);
    assert!(said.starts_with("* THREAD (") && said.ends_with("a OK THREAD done\r\n"), "{said}");
    assert!(asked.len() == 2 && asked[0] > 8 << 20 && asked[1] == 0, "{asked:?}");
    let (asked, said) = hear(1 << 20);
    assert_eq!((asked.len(), said.as_str()), (1, "a NO [LIMIT] this takes too much memory to be put in order\r\n"));
}

/// Each of a thousand criteria went through all keywords of each message, while other sessions waited.
#[test]
fn many_keywords_are_not_searched_at_once() {
    let asked = |keywords: &str| {
        let (mut session, mut world) = (session(), World::new());
        let row = MessageRow { keywords: keywords.into(), ..world.rows[0].clone() };
        world.rows = (1..=500).map(|uid| MessageRow { uid, ..row.clone() }).collect();
        run(&mut session, &mut world, b"1 LOGIN alice secret\r\n2 SELECT INBOX\r\n", usize::MAX);
        session.input(format!("a SEARCH{}\r\n", " UNKEYWORD x".repeat(1000)).as_bytes());
        match session.next() {
            Step::Ask(Question::Search { asked, .. }) => Some(asked.len()),
            _ => None,
        }
    };
    assert_eq!(asked("work"), None, "that is quick");
    let many = "a-word-of-a-keyword ".repeat(50);
    assert!(asked(many.trim_end()).is_some_and(|count| (1..=100).contains(&count)));
}
