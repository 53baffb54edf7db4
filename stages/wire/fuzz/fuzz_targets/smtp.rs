//! A client that says anything: no panic, no message without recipients, no growth beyond the limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::session::{Session, Step, Tls};
use wire::smtp::{Answer, Limits, Question, Reply, SmtpSession};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { message: 4096, header: 2048, recipients: 5, ..Limits::default() };
    let mut session = SmtpSession::new("mx.example", limits, Tls::Offered);
    let mut pieces = bytes.chunks(7);
    loop {
        match session.next() {
            Step::NeedInput => match pieces.next() {
                Some(piece) => session.input(piece),
                None => session.end_of_input(),
            },
            Step::Ask(Question::Message(message)) => {
                assert!(!message.recipients.is_empty() && message.recipients.len() <= 5);
                assert!(message.body.len() <= 4096);
                assert!(message.body.is_empty() || message.body.ends_with(b"\r\n"));
                session.answer(Answer::Reply(Reply::kept("id")));
            }
            Step::Ask(Question::Data { .. }) => session.answer(Answer::Reserve(1024)),
            Step::Ask(Question::Grow { total }) => session.answer(Answer::Reserve(total * 2)),
            Step::Ask(Question::WentOn | Question::Abandoned) => session.answer(Answer::Noted),
            Step::Ask(Question::Sender(_) | Question::Recipient(_)) => session.answer(Answer::Accept),
            Step::Output(_) => {}
            Step::StartTls => session.tls_started(),
            Step::Compress => session.compressed(),
            Step::Close => break,
        }
    }
});
