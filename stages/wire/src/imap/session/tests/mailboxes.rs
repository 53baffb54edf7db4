//! Making and removing mailboxes, and bringing mail in.

use super::*;
use crate::imap::{Appended, Manage, No, Placed, Quota};

#[test]
fn quotas_and_the_like() {
    let quota = "* QUOTA \"\" (STORAGE 5 1024 MESSAGE 2 100)\r\n";
    check("a GETQUOTA \"\"\r\n", &format!("{quota}a OK GETQUOTA done\r\n"));
    check("a GETQUOTAROOT INBOX\r\n", &format!("* QUOTAROOT \"INBOX\" \"\"\r\n{quota}a OK GETQUOTAROOT done\r\n"));
    check("a GETQUOTA x\r\n", "a NO [NONEXISTENT] there is no such quota root\r\n");
    check("a SETQUOTA \"\" (STORAGE 512)\r\n", "a NO [NOPERM] only an operator sets limits\r\n");
    check("a NAMESPACE\r\n", "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\na OK NAMESPACE done\r\n");
    check("a ID NIL\r\n", "* ID (\"name\" \"Chainmail\")\r\na OK ID done\r\n");
    check(
        "a CREATE x (USE (\\Archive))\r\nb CREATE x (USE (\\All))\r\n",
        "a OK CREATE done\r\nb NO [USEATTR] a mailbox cannot have this use\r\n",
    );
    check(
        "a LIST (SPECIAL-USE) \"\" * RETURN (STATUS (MESSAGES))\r\n",
        "* LIST (\\HasNoChildren \\Junk) \"/\" \"Junk\"\r\n* STATUS \"Junk\" (MESSAGES 2)\r\na OK LIST done\r\n",
    );
}

/// RFC 9208: whoever tells of STORAGE tells this.
#[test]
fn what_an_expunge_would_free_is_told() {
    check(
        "a STATUS INBOX (DELETED DELETED-STORAGE)\r\n",
        "* STATUS \"INBOX\" (DELETED 0 DELETED-STORAGE 25)\r\na OK STATUS done\r\n",
    );
    check(
        "a LIST \"\" INBOX RETURN (STATUS (DELETED-STORAGE))\r\n",
        "* LIST (\\HasNoChildren) \"/\" \"INBOX\"\r\n* STATUS \"INBOX\" (DELETED-STORAGE 25)\r\na OK LIST done\r\n",
    );
}

/// What has no limits was told of as a root without resources, which is no response.
#[test]
fn an_account_without_limits_has_no_quota_root() {
    for (said, want) in [
        ("GETQUOTAROOT INBOX", "* QUOTAROOT \"INBOX\"\r\na OK GETQUOTAROOT done\r\n"),
        ("GETQUOTA \"\"", "a NO [NONEXISTENT] there is no such quota root\r\n"),
    ] {
        let (mut session, mut world) = (session(), World::new());
        run(&mut session, &mut world, b"1 LOGIN alice secret\r\n", usize::MAX);
        session.input(format!("a {said}\r\n").as_bytes());
        let Step::Ask(Question::Quota) = session.next() else { panic!("it did not ask") };
        session.answer(Answer::Quota(Quota { bytes: None, messages: None }));
        assert_eq!(run(&mut session, &mut world, b"", usize::MAX), want);
    }
}

/// Junk is there, and what begins with `no` is not.
pub(super) fn answer(question: &Question) -> Answer {
    match question {
        Question::Manage(Manage::Create { name, .. } | Manage::Rename { to: name, .. }) if name == "Junk" => {
            Answer::No(No::Exists)
        }
        Question::Manage(Manage::Delete(name)) if name.starts_with("no") => Answer::No(No::NoSuch),
        Question::Manage(Manage::Delete(name)) if name == "INBOX" => Answer::No(No::Cannot),
        Question::Quota => Answer::Quota(Quota { bytes: Some((5000, 1 << 20)), messages: Some((2, 100)) }),
        Question::Room { name, .. } if name == "nowhere" => Answer::No(No::NoSuch),
        Question::Room { name, .. } if name == "full" => Answer::No(No::Full),
        Question::Append(Appended { name, .. }) if name == "nowhere" => Answer::No(No::NoSuch),
        Question::Copy { to, .. } if to == "nowhere" => Answer::No(No::NoSuch),
        Question::Append(appended) => Answer::Placed(Placed {
            uidvalidity: 7,
            from: Vec::new(),
            to: appended.messages.iter().map(|message| u32::try_from(message.text.len()).unwrap()).collect(),
        }),
        Question::Copy { uids, .. } => Answer::Placed(Placed {
            uidvalidity: 9,
            from: uids.clone(),
            to: (1..).zip(uids).map(|(uid, _)| uid).collect(),
        }),
        _ => Answer::Done,
    }
}

#[test]
fn a_message_is_appended() {
    for said in [
        "a APPEND Junk (\\Seen work) \" 7-Feb-1994 21:52:25 -0800\" {5+}\r\na\r\nb\0\r\n",
        "a append Junk ~{5+}\r\na\r\nb\0\r\n",
        "a APPEND {4+}\r\nJunk {5+}\r\n\"{9}\"\r\n",
        "a APPEND Junk UTF8 (~{5+}\r\nabcde)\r\n",
    ] {
        // NUL is for those who say so (RFC 3516).
        let want = if said.contains('\0') && !said.contains('~') {
            "a BAD a message has no NUL\r\n"
        } else {
            "a OK [APPENDUID 7 5] APPEND done\r\n"
        };
        check(said, want);
    }
    check(
        "a APPEND Junk {5}\r\nabcde\r\nb NOOP\r\n",
        "+ go on\r\na OK [APPENDUID 7 5] APPEND done\r\nb OK NOOP done\r\n",
    );
    check("a APPEND INBOX {5+}\r\nabcde\r\n", "a OK [APPENDUID 7 5] APPEND done\r\n");
}

/// It would be tried again, and the message be there twice.
#[test]
fn an_append_that_is_done_is_told_so_though_the_mailbox_cannot_be_looked_at() {
    let (mut session, mut world) = (session(), World::new());
    run(&mut session, &mut world, b"1 LOGIN alice secret\r\n2 SELECT INBOX\r\n", usize::MAX);
    session.input(b"a APPEND INBOX {5+}\r\nabcde\r\n");
    loop {
        match session.next() {
            Step::Ask(Question::Changes) => break session.answer(Answer::Unavailable),
            Step::Ask(question) => session.answer(world.answer(question)),
            _ => panic!("the mailbox was not looked at"),
        }
    }
    assert_eq!(run(&mut session, &mut world, b"", usize::MAX), "a OK [APPENDUID 7 5] APPEND done\r\n");
}

#[test]
fn an_append_that_is_refused_loses_no_place() {
    let literal = "b LOGOUT\r\n";
    for (said, why) in [
        ("APPEND nowhere", "NO [TRYCREATE] there is no such mailbox"),
        ("APPEND full", "NO [OVERQUOTA] the account has no room for it"),
        ("APPEND \"&\"", "NO [CANNOT] no mailbox can have this name"),
    ] {
        check(&format!("a {said} {{10+}}\r\n{literal}\r\nc NOOP\r\n"), &format!("a {why}\r\nc OK NOOP done\r\n"));
        check(&format!("a {said} {{10}}\r\nc NOOP\r\n"), &format!("a {why}\r\nc OK NOOP done\r\n"));
    }
    let large = "x".repeat(26 << 20);
    let length = large.len();
    check(
        &format!("a APPEND Junk {{{length}}}\r\nc NOOP\r\n"),
        "a NO [TOOBIG] a message has at most 26214400 bytes\r\nc OK NOOP done\r\n",
    );
    check(
        &format!("a APPEND Junk {{{length}+}}\r\n{large}\r\nc NOOP\r\n"),
        "a NO [TOOBIG] a message has at most 26214400 bytes\r\nc OK NOOP done\r\n",
    );
    check("a APPEND Junk {0}\r\nc NOOP\r\n", "a NO an empty message is none\r\nc OK NOOP done\r\n");
    let why = "a BAD the command does not end behind the message\r\n";
    check("a APPEND Junk {1+}\r\nxx {1+}\r\ny\r\nc NOOP\r\n", &format!("{why}c OK NOOP done\r\n"));
    check("a APPEND Junk {1+}\r\nxx {1}\r\nc NOOP\r\n", &format!("{why}c OK NOOP done\r\n"));
    check("a APPEND Junk {1+}\r\nxy\r\nc NOOP\r\n", &format!("{why}c OK NOOP done\r\n"));
}

/// RFC 3502.
#[test]
fn several_messages_are_appended_all_or_none() {
    let done = "a OK [APPENDUID 7 2:4] APPEND done\r\nz OK NOOP done\r\n";
    check(
        "a APPEND Junk {2+}\r\nab (\\Seen) {3+}\r\nabc \" 7-Feb-1994 21:52:25 -0800\" ~{4+}\r\na\0cd\r\nz NOOP\r\n",
        done,
    );
    check("a APPEND Junk UTF8 (~{2+}\r\nab) (x) UTF8 (~{3+}\r\nabc) {4+}\r\n{1}\r\r\nz NOOP\r\n", done);
    check("a APPEND Junk {2}\r\nab {3}\r\nabc\r\n", "+ go on\r\n+ go on\r\na OK [APPENDUID 7 2:3] APPEND done\r\n");
    for (said, why) in [
        ("nowhere {1+}\r\nx {1+}\r\ny\r\n", "NO [TRYCREATE] there is no such mailbox"),
        ("nowhere {1+}\r\nx {1}\r\n", "NO [TRYCREATE] there is no such mailbox"),
        ("\"&\" {1+}\r\nx {1+}\r\ny {1}\r\n", "NO [CANNOT] no mailbox can have this name"),
        ("Junk {1+}\r\nx {0+}\r\n\r\n", "NO an empty message is none"),
        ("Junk {1+}\r\nx {0}\r\n", "NO an empty message is none"),
        ("Junk {1+}\r\n\0 {1+}\r\ny\r\n", "BAD a message has no NUL"),
        ("Junk {1+}\r\nx {1+}\r\n\0\r\n", "BAD a message has no NUL"),
        ("Junk {1+}\r\nx NONSENSE {1+}\r\ny {1}\r\n", "BAD the command does not end behind the message"),
        ("Junk {1+}\r\nx {99999999+}\r\n", ""),
        ("Junk {1+}\r\nx {99999999}\r\n", "NO [TOOBIG] a message has at most 26214400 bytes"),
        ("Junk {1+}\r\nx {26214400}\r\n", "NO [TOOBIG] the messages of one command have at most 26214400 bytes"),
    ] {
        let want = if why.is_empty() { String::new() } else { format!("a {why}\r\nz OK NOOP done\r\n") };
        check(&format!("a APPEND {said}z NOOP\r\n"), &want);
    }
    let many = "x {1+}\r\n".repeat(1001);
    check(
        &format!("a APPEND Junk {{1+}}\r\n{many}x\r\nz NOOP\r\n"),
        "a NO [LIMIT] at most 1000 messages in one command\r\nz OK NOOP done\r\n",
    );
}

/// What was kept for messages that are not to be.
#[test]
fn room_is_given_back() {
    for (said, want) in [
        ("a APPEND Junk {1+}\r\nx\r\n", &[1][..]),
        ("a APPEND Junk {1+}\r\nx {2+}\r\nyz\r\n", &[1, 3]),
        ("a APPEND Junk {1+}\r\nx {0+}\r\n\r\n", &[1, 0]),
        ("a APPEND Junk {1+}\r\nx {2+}\r\ny\0\r\n", &[1, 3, 0]),
        ("a APPEND Junk {1+}\r\nxy\r\n", &[1, 0]),
        ("a APPEND full {1+}\r\nx {1+}\r\ny\r\n", &[1]),
    ] {
        let (mut session, mut world) = (session(), World::new());
        run(&mut session, &mut world, b"1 LOGIN alice secret\r\n", usize::MAX);
        session.input(said.as_bytes());
        let mut sizes = Vec::new();
        loop {
            match session.next() {
                Step::Output(_) => {}
                Step::Ask(question) => {
                    if let Question::Room { size, .. } = question {
                        sizes.push(size);
                    }
                    session.answer(world.answer(question));
                }
                _ => break,
            }
        }
        assert_eq!(sizes, want, "{said}");
    }
}

/// It was kept for as long as the session lasted when a message behind the first was refused.
#[test]
fn room_of_what_is_refused_is_given_back() {
    for (first, then) in [("{1}\r\n", "x {70000}\r\n"), ("{1+}\r\n", "x {3+}\r\nabc\r\n")] {
        let (mut session, mut world) = (session(), World::new());
        run(&mut session, &mut world, b"1 LOGIN alice secret\r\n", usize::MAX);
        let (mut sizes, mut said, mut later) = (Vec::new(), String::new(), Some(then));
        session.input(format!("a APPEND Junk {first}").as_bytes());
        loop {
            match session.next() {
                Step::Output(bytes) => said.push_str(str::from_utf8(&bytes).unwrap()),
                Step::Ask(Question::Room { size, .. }) => {
                    session.answer(if size > 1 { Answer::No(No::Full) } else { Answer::Done });
                    sizes.push(size);
                }
                Step::Ask(question) => session.answer(world.answer(question)),
                Step::NeedInput if later.is_some() => session.input(later.take().unwrap().as_bytes()),
                _ => break,
            }
        }
        assert_eq!((sizes.len(), sizes[0], sizes.last()), (3, 1, Some(&0)), "{said}");
        assert!(said.ends_with("a NO [OVERQUOTA] the account has no room for it\r\n"), "{said}");
    }
}

/// What a stranger sends is read over, whatever it is.
#[test]
fn nothing_is_appended_before_the_login() {
    let said = format!("a APPEND INBOX {{20000+}}\r\n{}\r\nb APPEND INBOX {{20000}}\r\nc NOOP\r\n", "x".repeat(20_000));
    let heard = run(&mut session(), &mut World::new(), said.as_bytes(), 1000);
    let want = "a BAD the command cannot be read\r\nb BAD [TOOBIG] the literal is too long\r\nc OK NOOP done\r\n";
    assert!(heard.ends_with(want), "{heard}");
}

#[test]
fn copying_and_moving() {
    check("a COPY 1:* Junk\r\n", "a OK [COPYUID 9 5,15 1:2] COPY done\r\n");
    check("a UID COPY 15 nowhere\r\n", "a NO [TRYCREATE] there is no such mailbox\r\n");
    check("a UID COPY 99 Junk\r\n", "a OK COPY done\r\n");
    check("a UID MOVE 15 Junk\r\n", "* OK [COPYUID 9 15 1] moved\r\na OK MOVE done\r\n");
    let said = "a EXAMINE INBOX\r\nb MOVE 1 Junk\r\n";
    let (mut session, mut world) = (session(), World::new());
    let heard = run(&mut session, &mut world, format!("1 LOGIN alice secret\r\n{said}").as_bytes(), 5);
    assert!(heard.ends_with("b NO [READ-ONLY] the mailbox was opened with EXAMINE\r\n"), "{heard}");
    check(
        "a STORE 1:2 +FLAGS.SILENT (\\Deleted)\r\nb UID EXPUNGE 6:99\r\n",
        "a OK STORE done\r\n* 2 EXPUNGE\r\nb OK EXPUNGE done\r\n",
    );
}

proptest! {
    #[test]
    fn any_split_of_an_append_gives_the_same(
        said in "(a NOOP|b APPEND INBOX \\{3\\+\\}|c APPEND INBOX \\{3\\}|d APPEND nowhere \\{2\\+\\}| \\{2\\+\\}| \
    \\{1\\}|x|y|\r\n){0,14}",
        piece in 1usize..9,
    ) {
        let said = format!("1 LOGIN alice secret\r\n{said}");
        let whole = run(&mut session(), &mut World::new(), said.as_bytes(), usize::MAX);
        prop_assert_eq!(run(&mut session(), &mut World::new(), said.as_bytes(), piece), whole);
    }
}

#[test]
fn mailboxes_are_made_and_removed() {
    check(
        "a CREATE x/y/\r\nb CREATE junk\r\nc CREATE Junk\r\nd CREATE \"x%\"\r\ne CREATE x//y\r\n",
        "a OK CREATE done\r\nb OK CREATE done\r\nc NO [ALREADYEXISTS] there is such a mailbox already\r\n\
         d NO [CANNOT] no mailbox can have this name\r\ne NO [CANNOT] no mailbox can have this name\r\n",
    );
    check(
        "a DELETE x\r\nb DELETE inbox\r\nc DELETE nowhere\r\nd DELETE &\r\n",
        "a OK DELETE done\r\nb NO [CANNOT] this cannot be done with this mailbox\r\nc NO [NONEXISTENT] there is no \
         such mailbox\r\nd NO [CANNOT] no mailbox can have this name\r\n",
    );
    check(
        "a RENAME x Junk\r\nb RENAME x y\r\n",
        "a NO [ALREADYEXISTS] there is such a mailbox already\r\nb OK RENAME done\r\n",
    );
    check("a SUBSCRIBE y\r\nb UNSUBSCRIBE y\r\n", "a OK SUBSCRIBE done\r\nb OK UNSUBSCRIBE done\r\n");
}

#[test]
fn a_client_that_removes_what_it_has_selected_is_told() {
    check(
        "a RENAME INBOX old\r\nb FETCH 1 UID\r\n",
        "* OK [CLOSED] the mailbox that was selected is gone\r\na OK RENAME done\r\nb BAD select a mailbox first\r\n",
    );
}

#[test]
fn a_name_that_none_can_have_is_refused_alike() {
    for name in ["\"&\"", "\"&AP\"", "\"&AA-\"", "\"x//y\"", "\"/x\"", "\"\"", "{1+}\r\n\u{1}"] {
        for command in [
            "STATUS ? (MESSAGES)",
            "CREATE ?",
            "CREATE ? (USE (\\Archive))",
            "DELETE ?",
            "RENAME ? x",
            "RENAME x ?",
            "SUBSCRIBE ?",
            "UNSUBSCRIBE ?",
            "GETQUOTAROOT ?",
            "COPY 1 ?",
            "UID MOVE 5 ?",
            "APPEND ? {1}",
        ] {
            let said = command.replace('?', name);
            check(
                &format!("a {said}\r\nb NOOP\r\n"),
                "a NO [CANNOT] no mailbox can have this name\r\nb OK NOOP done\r\n",
            );
        }
    }
    let closed = "* OK [CLOSED] what follows is of another mailbox\r\n";
    check("a SELECT \"&\"\r\n", &format!("{closed}a NO [CANNOT] no mailbox can have this name\r\n"));
    check("a EXAMINE \"&\"\r\n", &format!("{closed}a NO [CANNOT] no mailbox can have this name\r\n"));
    check("a LIST \"\" \"&\"\r\nb LSUB \"&\" *\r\n", "a OK LIST done\r\nb OK LSUB done\r\n");
}

#[test]
fn patterns_have_a_bound() {
    let many = "a ".repeat(11);
    check(&format!("a LIST \"\" ({})\r\n", many.trim_end()), "a NO [LIMIT] these are too many patterns\r\n");
    check(&format!("a LIST \"\" {}x\r\n", "%".repeat(30_000)), "a OK LIST done\r\n");
}

/// What was only announced took all its room.
#[test]
fn what_is_appended_takes_room_as_it_comes() {
    let hear = |most: u64| {
        let (mut session, mut world) = (session(), World::new());
        run(&mut session, &mut world, b"1 LOGIN alice secret\r\n", usize::MAX);
        let (mut asked, mut said, mut sent) = (Vec::new(), String::new(), 0);
        session.input(b"a APPEND INBOX {3000000}\r\n");
        loop {
            match session.next() {
                Step::Output(bytes) => said.push_str(std::str::from_utf8(&bytes).unwrap()),
                Step::Ask(Question::Receive(bytes)) => {
                    asked.push((sent, bytes));
                    session.answer(if bytes > most { Answer::Unavailable } else { Answer::Done });
                }
                Step::Ask(question) => session.answer(answer(&question)),
                Step::NeedInput if sent < 3_000_000 => {
                    assert!(session.takes_much());
                    session.input(&[b'x'; 50_000]);
                    sent += 50_000;
                }
                Step::NeedInput if sent == 3_000_000 => {
                    session.input(b"\r\n");
                    sent += 2;
                }
                _ => return (asked, said),
            }
        }
    };
    let mib = |count: u64| 16_384 + (count << 20);
    let (asked, said) = hear(u64::MAX);
    assert_eq!(asked, [(50_000, mib(1)), (1_100_000, mib(2)), (2_150_000, mib(3))]);
    assert!(said.starts_with("+ go on\r\na OK [APPENDUID"), "{said}");
    let (asked, said) = hear(mib(1));
    assert_eq!((asked.len(), said.as_str()), (2, "+ go on\r\na NO [UNAVAILABLE] not at the moment; try again\r\n"));
}

/// A client that asked for each of a thousand mailboxes had all of them read a thousand times.
#[test]
fn a_status_is_asked_of_one_mailbox() {
    let (mut session, mut world) = (session(), World::new());
    run(&mut session, &mut world, b"1 LOGIN alice secret\r\n", usize::MAX);
    session.input(b"a STATUS Junk (MESSAGES)\r\n");
    assert_eq!(session.next(), Step::Ask(Question::Mailbox("Junk".to_owned())));
    session.answer(Answer::Mailboxes(Vec::new()));
    session.input(b"a STATUS Junk (DELETED-STORAGE)\r\n");
    while session.next() != Step::Ask(Question::MailboxWithDeleted("Junk".to_owned())) {}
    session.answer(Answer::Unavailable);
    while session.next() != Step::NeedInput {}
    session.input(b"a STATUS Junk (MESSAGES)\r\n");
    assert_eq!(session.next(), Step::Ask(Question::Mailbox("Junk".to_owned())));
    session.answer(Answer::Mailboxes(Vec::new()));
    let said = b"b STATUS INBOX (MESSAGES)\r\n";
    let want = "a NO [NONEXISTENT] there is no such mailbox\r\n* STATUS \"INBOX\" (MESSAGES 2)\r\nb OK STATUS done\r\n";
    assert_eq!(run(&mut session, &mut world, said, usize::MAX), want);
}

/// Thousands of keywords lay in memory for which no room was asked, behind a few bytes of texts.
#[test]
fn what_is_said_of_messages_takes_room() {
    let keywords = (0..15).map(|at| format!("{at:064}")).collect::<Vec<_>>().join(" ");
    let one = format!(" ({keywords}) {{1+}}\r\nx");
    let (mut session, mut world) = (session(), World::new());
    run(&mut session, &mut world, b"1 LOGIN alice secret\r\n", usize::MAX);
    session.input(format!("a APPEND INBOX{}\r\n", one.repeat(999)).as_bytes());
    let (mut asked, mut said) = (Vec::new(), String::new());
    loop {
        match session.next() {
            Step::Output(bytes) => said.push_str(std::str::from_utf8(&bytes).unwrap()),
            Step::Ask(Question::Receive(bytes)) => {
                asked.push(bytes);
                session.answer(Answer::Done);
            }
            Step::Ask(question) => session.answer(answer(&question)),
            _ => break,
        }
    }
    assert_eq!(asked, [16_384 + (1 << 20), 16_384 + (2 << 20)]);
    assert!(said.starts_with("a OK [APPENDUID"), "{said}");
}
