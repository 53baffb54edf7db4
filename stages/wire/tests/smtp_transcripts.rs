//! Plays the SMTP dialogues of `tests/transcripts/smtp`, in the pieces that they name and byte by byte.
//!
//! A transcript is a text. What the client does begins with C, the rest is what must come of it, in order:
//!
//! ```text
//! # a comment
//! limits: recipients=2 message=100     (at the top; also header, line, errors, idle, mails)
//! tls: offered                         (at the top; else none is to be had)
//! option: dsn                          (at the top)
//! W: full | grow=100 | stuck | 550 …   what the world says next time: no room, how far room grows, that it does not
//!                                      grow, or 451, 550 … about the next message
//! C: a line with its CR LF             several in a row come in one piece
//! C> raw bytes, \r \n \0 \t \\ \xff    nothing is added
//! E> raw bytes                         the same, and they had come before the replies so far were written
//! C! end | timeout | shutdown          the client closes; a farewell
//! S: what we say
//! Q: message <sender> to <recipient> …: "the body with escapes" | went on | abandoned | grow <total>
//! X: start tls | close
//! ```
//!
//! The world of a transcript: recipients whose local part begins with `unknown`, `unsure` or `suspended` are just that,
//! all others exist; the sender `<busy@…>` is told to come again; 64 KiB are reserved; messages are kept as 1, 2, 3.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use wire::session::{Farewell, Session, Step, Tls};
use wire::smtp::{Answer, Limits, Message, Question, Reply, SmtpSession};

#[derive(Clone, Copy)]
enum Pieces {
    AsWritten,
    Bytes,
}

/// The other side of the questions, and the record of what happened.
struct World {
    session: SmtpSession,
    record: Vec<String>,
    next: Option<String>,
    kept: u32,
    closed: bool,
}

impl World {
    fn new(session: SmtpSession) -> Self {
        let mut world = Self { session, record: Vec::new(), next: None, kept: 0, closed: false };
        world.settle();
        world
    }

    fn send(&mut self, bytes: &[u8]) {
        if !self.closed {
            self.session.input(bytes);
            self.settle();
        }
    }

    /// Goes on until the session wants more.
    fn settle(&mut self) {
        loop {
            match self.session.next() {
                Step::NeedInput => return,
                Step::Output(bytes) => {
                    let text = std::str::from_utf8(&bytes).unwrap().strip_suffix("\r\n").unwrap();
                    assert!(text.bytes().all(|byte| byte != 0), "a reply of plain text");
                    self.record.extend(text.split("\r\n").map(|line| format!("S: {line}")));
                }
                Step::Ask(question) => {
                    let answer = self.answer(question);
                    self.session.answer(answer);
                }
                Step::StartTls => {
                    self.record.push("X: start tls".into());
                    self.session.tls_started();
                }
                Step::Compress => panic!("it is not offered"),
                Step::Close => {
                    self.record.push("X: close".into());
                    self.closed = true;
                    return;
                }
            }
        }
    }

    fn answer(&mut self, question: Question) -> Answer {
        match question {
            Question::Sender(sender) if sender.path.local() == "busy" => Answer::Reply(Reply::no_room()),
            Question::Sender(_) => Answer::Accept,
            Question::Recipient(recipient) => match recipient.path.local() {
                local if local.starts_with("unknown") => Answer::Reply(Reply::unknown_recipient()),
                local if local.starts_with("unsure") => Answer::Reply(Reply::recipient_unsure()),
                local if local.starts_with("suspended") => Answer::Reply(Reply::suspended_recipient()),
                _ => Answer::Accept,
            },
            Question::Data { .. } if self.next.take_if(|next| next == "full").is_some() => {
                Answer::Reply(Reply::no_room())
            }
            Question::Data { .. } => Answer::Reserve(64 << 10),
            Question::Grow { total } => {
                self.record.push(format!("Q: grow {total}"));
                match self.next.take_if(|next| next == "stuck" || next.starts_with("grow=")) {
                    Some(next) if next == "stuck" => Answer::Reply(Reply::no_room()),
                    Some(next) => Answer::Reserve(next["grow=".len()..].parse().unwrap()),
                    None => Answer::Reserve(total),
                }
            }
            Question::Message(message) => {
                self.record.push(shown(&message));
                self.kept += 1;
                match self.next.take().as_deref() {
                    Some("550") => Answer::Reply(Reply::infected("Eicar-Test-Signature\r\n250 forged")),
                    Some("451") => Answer::Reply(Reply::local_error()),
                    Some("wrong") => Answer::Accept,
                    _ => Answer::Reply(Reply::kept(&self.kept.to_string())),
                }
            }
            Question::WentOn => {
                self.record.push("Q: went on".into());
                Answer::Noted
            }
            Question::Abandoned => {
                self.record.push("Q: abandoned".into());
                Answer::Noted
            }
        }
    }
}

fn shown(message: &Message) -> String {
    let mut line = format!("Q: message <{}>", message.sender.path);
    for (name, value) in [("ret", &message.sender.ret), ("envid", &message.sender.envid)] {
        if !value.is_empty() {
            line += &format!(" {name}={value}");
        }
    }
    line += " to";
    for recipient in &message.recipients {
        line += &format!(" <{}>", recipient.path);
        for (name, value) in [("notify", &recipient.notify), ("orcpt", &recipient.orcpt)] {
            if !value.is_empty() {
                line += &format!(" {name}={value}");
            }
        }
    }
    let body = message.body.escape_ascii().to_string();
    if body.len() > 200 { format!("{line}: {} bytes", message.body.len()) } else { format!("{line}: \"{body}\"") }
}

/// The bytes of a `C>` line. `\*80000:x` stands for many.
fn raw(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((before, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let (kind, mut behind) = escape.split_at(1);
        match kind {
            "r" => bytes.push(b'\r'),
            "n" => bytes.push(b'\n'),
            "t" => bytes.push(b'\t'),
            "0" => bytes.push(0),
            "\\" => bytes.push(b'\\'),
            "x" => {
                bytes.push(u8::from_str_radix(&behind[..2], 16).unwrap());
                behind = &behind[2..];
            }
            "*" => {
                let (count, what) = behind.split_once(':').unwrap();
                bytes.extend(vec![what.as_bytes()[0]; count.parse().unwrap()]);
                behind = &what[1..];
            }
            other => panic!("no such escape: {other}"),
        }
        rest = behind;
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

fn session(text: &str) -> SmtpSession {
    let (mut limits, mut tls, mut dsn) = (Limits::default(), Tls::Unavailable, false);
    for line in text.lines() {
        if let Some(words) = line.strip_prefix("limits: ") {
            for (name, value) in words.split(' ').map(|word| word.split_once('=').unwrap()) {
                let number: u32 = value.parse().unwrap();
                match name {
                    "line" => limits.line = number as usize,
                    "message" => limits.message = number.into(),
                    "header" => limits.header = number.into(),
                    "recipients" => limits.recipients = number as usize,
                    "errors" => limits.errors = number,
                    "idle" => limits.idle_commands = number,
                    "mails" => limits.mails = number,
                    other => panic!("no such limit: {other}"),
                }
            }
        }
        match line {
            "tls: offered" => tls = Tls::Offered,
            "tls: on" => tls = Tls::On,
            "option: dsn" => dsn = true,
            _ => {}
        }
    }
    let session = SmtpSession::new("mx.example.org", limits, tls);
    if dsn { session.offering_dsn() } else { session }
}

/// What becomes of the client's lines of a transcript.
fn play(text: &str, pieces: Pieces) -> Vec<String> {
    let mut world = World::new(session(text));
    let mut gathered = Vec::new();
    for line in text.lines().chain([""]) {
        let sent = match line.split_once([':', '>']) {
            Some(("C", _)) if line.starts_with("C:") => {
                [line[2..].strip_prefix(' ').unwrap_or("").as_bytes(), b"\r\n"].concat()
            }
            Some(("C", bytes)) => raw(bytes.strip_prefix(' ').unwrap_or("")),
            _ => Vec::new(),
        };
        if !sent.is_empty() {
            gathered.extend(sent);
            continue;
        }
        let piece = match pieces {
            Pieces::AsWritten => gathered.len().max(1),
            Pieces::Bytes => 1,
        };
        gathered.chunks(piece).for_each(|bytes| world.send(bytes));
        gathered.clear();
        match line {
            _ if line.starts_with("W: ") => world.next = Some(line[3..].to_owned()),
            _ if line.starts_with("E> ") => world.session.early_input(&raw(&line[3..])),
            "C! end" => world.session.end_of_input(),
            "C! timeout" => world.session.farewell(Farewell::TimedOut),
            "C! shutdown" => world.session.farewell(Farewell::ShuttingDown),
            _ => continue,
        }
        if !world.closed {
            world.settle();
        }
    }
    world.record
}

#[track_caller]
fn check(file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    let want: Vec<_> =
        text.lines().filter(|line| ["S:", "Q:", "X:"].iter().any(|kind| line.starts_with(kind))).collect();
    assert_eq!(play(&text, Pieces::AsWritten), want, "{}", file.display());
    // When the client is seen to have gone on depends on the pieces; nothing else does.
    let without = |lines: Vec<String>| lines.into_iter().filter(|line| line != "Q: went on").collect::<Vec<_>>();
    let want = without(want.into_iter().map(str::to_owned).collect());
    // A client's next bytes come after STARTTLS was obeyed, and so under TLS; only in one piece can they be told.
    if !text.contains("# in one piece only") {
        assert_eq!(without(play(&text, Pieces::Bytes)), want, "{}, byte by byte", file.display());
    }
}

#[test]
fn transcripts() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/transcripts/smtp");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 15, "the transcripts are there");
    files.iter().for_each(|file| check(file));
}

proptest! {
    /// Commands and message text in any order, in any pieces.
    #[test]
    fn any_split_gives_the_same_steps(
        parts in proptest::collection::vec(proptest::sample::select(PARTS), 0..30),
        cuts in proptest::collection::vec(1usize..200, 1..20),
    ) {
        let sent: Vec<u8> = parts.iter().flat_map(|part| raw(part)).collect();
        let limits = || Limits { line: 40, message: 90_000, header: 70_000, recipients: 2, ..Limits::default() };
        let mut whole = World::new(SmtpSession::new("mx.example.org", limits(), Tls::Unavailable));
        whole.send(&sent);
        let mut split = World::new(SmtpSession::new("mx.example.org", limits(), Tls::Unavailable));
        let (mut rest, mut cut) = (&sent[..], cuts.iter().cycle());
        while !rest.is_empty() {
            // Long runs are sent in larger pieces, or the test would take long.
            let length = cut.next().unwrap() * if rest.len() > 10_000 { 500 } else { 1 };
            let (now, later) = rest.split_at(length.min(rest.len()));
            split.send(now);
            rest = later;
        }
        let mut records = [whole.record, split.record];
        records.iter_mut().for_each(|record| record.retain(|line| line != "Q: went on"));
        prop_assert_eq!(&records[0], &records[1]);
    }
}

const PARTS: &[&str] = &[
    "EHLO client.example\\r\\n",
    "HELO client.example\\r\\n",
    "MAIL FROM:<a@b.example>\\r\\n",
    "MAIL FROM:<a@b.example>\\r\\n",
    "RCPT TO:<c@d.example>\\r\\n",
    "RCPT TO:<c@d.example>\\r\\n",
    "RCPT TO:<unknown@d.example>\\r\\n",
    "DATA\\r\\n",
    "DATA\\r\\n",
    "RSET\\r\\n",
    "VRFY x\\r\\n",
    "STARTTLS\\r\\n",
    "QUIT\\r\\n",
    "a: b\\r\\n\\r\\ntext\\r\\n",
    "..\\r\\n",
    ".\\r\\n",
    ".\\r\\n",
    "\\r\\n",
    "\\r\\n",
    ".\\n",
    "\\n",
    "\\r",
    "\\0",
    "\\xff",
    "\\*50:x",
    "\\*66000:x",
    "\\*30000:y\\r\\n",
];
