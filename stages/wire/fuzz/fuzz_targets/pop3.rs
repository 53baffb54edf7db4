//! A reader that says anything: no panic, and nothing is deleted without QUIT.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use wire::pop3::{Answer, Entry, Limits, Pop3Session, Question};
use wire::session::{Cleartext, Session, Step, Tls};

fuzz_target!(|bytes: &[u8]| {
    let mut session = Pop3Session::new(Limits::default(), Tls::Offered, Cleartext::Allowed);
    let mut pieces = bytes.chunks(5);
    loop {
        match session.next() {
            Step::NeedInput => match pieces.next() {
                Some(piece) => session.input(piece),
                None => session.end_of_input(),
            },
            Step::Ask(Question::Login { .. }) => {
                let entry = Entry { size: 10, unique: "u".to_owned() };
                session.answer(Answer::Maildrop(vec![entry; 3]));
            }
            Step::Ask(Question::Message(index)) => {
                assert!(index < 3);
                session.answer(Answer::Text(Bytes::from_static(b"A: b\r\n\r\n.x\r\n")));
            }
            Step::Ask(Question::Delete(indexes)) => {
                assert!(indexes.iter().all(|index| *index < 3));
                session.answer(Answer::Done);
            }
            Step::Output(_) => {}
            Step::StartTls => session.tls_started(),
            Step::Compress => session.compressed(),
            Step::Close => break,
        }
    }
});
