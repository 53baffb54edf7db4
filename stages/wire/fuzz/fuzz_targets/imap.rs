//! A reader that says anything about any mail: no panic.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use wire::imap::{Answer, ImapSession, Limits, MessageRow, Outline, Question, View};
use wire::session::{Cleartext, Session, Step, Tls};

const READ: &[u8] = b"a LOGIN a b\r\nb SELECT INBOX\r\nc FETCH 1 (ENVELOPE BODYSTRUCTURE BODY[1.1] BODY[HEADER.FIELDS \
                      (TO)])\r\n";

fuzz_target!(|bytes: &[u8]| {
    let mut session = ImapSession::new(Limits::default(), Tls::Offered, Cleartext::Allowed);
    session.input(READ);
    let mut pieces = bytes.chunks(9);
    loop {
        match session.next() {
            Step::NeedInput => match pieces.next() {
                Some(piece) => session.input(piece),
                None => session.end_of_input(),
            },
            Step::Ask(Question::View(_) | Question::Select(_)) => {
                let row = MessageRow { uid: 1, flags: 0, keywords: "".into(), size: 1, received: 0, modseq: 1 };
                let messages = [row].into_iter().collect();
                session.answer(Answer::View(View { uidvalidity: 1, uidnext: 2, modseq: 1, messages, recent: 1 }));
            }
            // The bytes are the mail as well.
            Step::Ask(Question::Texts { now, .. }) => {
                let text = |(uid, _): &(u32, u64)| (*uid, Bytes::copy_from_slice(bytes));
                session.answer(Answer::Texts(now.0.len(), now.0.iter().map(text).collect()));
            }
            Step::Ask(Question::Outlines(uids)) => {
                let outline = |uid: &u32| (*uid, Outline::of(bytes));
                session.answer(Answer::Outlines(uids.len(), uids.iter().map(outline).collect()));
            }
            Step::Ask(Question::Mailboxes | Question::Mailbox(_) | Question::MailboxWithDeleted(_)) => {
                session.answer(Answer::Mailboxes(Vec::new()));
            }
            Step::Ask(_) => session.answer(Answer::Done),
            Step::Output(_) => {}
            Step::StartTls => session.tls_started(),
            Step::Compress => session.compressed(),
            Step::Close => break,
        }
    }
});
