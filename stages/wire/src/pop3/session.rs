//! The dialogue: logging in, reading, and deletions that become final only at QUIT (RFC 1939 section 6).

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};

use super::command::Command;
use super::question::{Answer, Entry, Limits, Question};
use super::text::{stuffed, top};
use crate::secret::Secret;
use crate::session::{Cleartext, Tls};
use crate::session::{Farewell, Session, Step};

#[derive(Debug)]
enum Mode {
    Command,
    /// A line of SASL is awaited.
    Sasl,
    Asked(Asked),
}

#[derive(Debug)]
enum Asked {
    Login,
    /// All lines, or the header and so many lines.
    Message(Option<usize>),
    Delete,
}

#[derive(Debug)]
struct Drop {
    entries: Vec<Entry>,
    deleted: Vec<bool>,
}

/// One client's dialogue.
#[derive(Debug)]
pub struct Pop3Session {
    limits: Limits,
    tls: Tls,
    cleartext: Cleartext,
    input: BytesMut,
    output: VecDeque<Bytes>,
    question: Option<Question>,
    mode: Mode,
    user: Option<String>,
    drop: Option<Drop>,
    errors: u32,
    failed_logins: u32,
    skipping: bool,
    start_tls: bool,
    closing: bool,
    ended: bool,
}

impl Pop3Session {
    /// A session that greets its client.
    pub fn new(limits: Limits, tls: Tls, cleartext: Cleartext) -> Self {
        Self {
            limits,
            tls,
            cleartext,
            input: BytesMut::new(),
            output: VecDeque::from([Bytes::from_static(b"+OK Chainmail POP3 ready\r\n")]),
            question: None,
            mode: Mode::Command,
            user: None,
            drop: None,
            errors: 0,
            failed_logins: 0,
            skipping: false,
            start_tls: false,
            closing: false,
            ended: false,
        }
    }

    fn ok(&mut self, text: &str) {
        self.output.push_back(format!("+OK {text}\r\n").into());
    }

    fn mistake(&mut self, text: &str) {
        self.output.push_back(format!("-ERR {text}\r\n").into());
        self.errors += 1;
        if self.errors >= self.limits.errors {
            self.closing = true;
        }
    }

    fn line(&mut self) -> Option<Option<Bytes>> {
        let Some(end) = memchr::memchr(b'\n', &self.input) else {
            if self.input.len() >= self.limits.line {
                self.input.clear();
                self.skipping = true;
            }
            return None;
        };
        let line = self.input.split_to(end + 1).freeze();
        if std::mem::take(&mut self.skipping) || line.len() > self.limits.line {
            return Some(None);
        }
        // Old clients end lines with LF alone; nothing depends on it here.
        let text = line.strip_suffix(b"\r\n").unwrap_or(&line[..end]);
        Some(Some(line.slice(..text.len())))
    }

    fn work(&mut self) -> bool {
        let Some(line) = self.line() else { return false };
        let sasl = matches!(std::mem::replace(&mut self.mode, Mode::Command), Mode::Sasl);
        match line {
            None => self.mistake("line too long"),
            Some(line) if sasl => self.sasl(&line),
            Some(line) => match Command::parse(&line) {
                Ok(command) => self.obey(command),
                Err(wrong) => self.mistake(wrong),
            },
        }
        true
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Capa => self.capa(),
            Command::Quit => self.quit(),
            Command::Noop if self.drop.is_some() => self.ok("nothing done"),
            command if self.drop.is_none() => self.before_login(command),
            command => self.after_login(&command),
        }
    }

    fn before_login(&mut self, command: Command) {
        let may_login = self.tls == Tls::On || self.cleartext == Cleartext::Allowed;
        match command {
            Command::Stls => self.stls(),
            Command::User(_) | Command::Pass(_) | Command::AuthPlain(_) if !may_login => {
                self.mistake("[AUTH] no password in the clear: use STLS, or the port for TLS");
            }
            Command::User(user) => {
                self.user = Some(user);
                self.ok("now the password");
            }
            Command::Pass(password) => match self.user.take() {
                Some(user) => self.login(user, password),
                None => self.mistake("say USER first"),
            },
            Command::AuthPlain(Some(initial)) => self.sasl(initial.reveal().as_bytes()),
            Command::AuthPlain(None) => {
                self.output.push_back(Bytes::from_static(b"+ \r\n"));
                self.mode = Mode::Sasl;
            }
            Command::AuthList if !may_login => self.output.push_back(Bytes::from_static(b"+OK\r\n.\r\n")),
            Command::AuthList => self.output.push_back(Bytes::from_static(b"+OK\r\nPLAIN\r\n.\r\n")),
            _ => self.mistake("log in first"),
        }
    }

    /// A SASL PLAIN response (RFC 4616): authorization identity, NUL, user, NUL, password, in base 64.
    fn sasl(&mut self, response: &[u8]) {
        if response == b"*" {
            return self.mistake("given up");
        }
        let decoded = STANDARD.decode(response).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let parts = decoded.as_deref().map(|text| text.split('\0').collect::<Vec<_>>());
        match parts.as_deref() {
            Some([identity, user, password]) if identity.is_empty() || identity == user => {
                self.login((*user).to_owned(), Secret::new((*password).to_owned()));
            }
            _ => self.mistake("the response cannot be read"),
        }
    }

    fn login(&mut self, user: String, password: Secret<String>) {
        self.question = Some(Question::Login { user, password });
        self.mode = Mode::Asked(Asked::Login);
    }

    fn stls(&mut self) {
        match self.tls {
            Tls::On => self.mistake("TLS is on already"),
            Tls::Unavailable => self.mistake("TLS is not available"),
            Tls::Offered => {
                self.ok("begin TLS");
                self.start_tls = true;
            }
        }
    }

    fn capa(&mut self) {
        let mut text = String::from("+OK\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\n");
        if self.drop.is_none() {
            if self.tls == Tls::Offered {
                text.push_str("STLS\r\n");
            }
            if self.tls == Tls::On || self.cleartext == Cleartext::Allowed {
                text.push_str("USER\r\nSASL PLAIN\r\n");
            }
        }
        text.push_str("IMPLEMENTATION Chainmail\r\n.\r\n");
        self.output.push_back(text.into());
    }

    fn quit(&mut self) {
        let deleted = self.drop.as_ref().map_or(Vec::new(), |drop| {
            drop.deleted.iter().enumerate().filter(|(_, deleted)| **deleted).map(|(index, _)| index).collect()
        });
        if deleted.is_empty() {
            self.ok("bye");
            self.closing = true;
        } else {
            self.question = Some(Question::Delete(deleted));
            self.mode = Mode::Asked(Asked::Delete);
        }
    }

    fn after_login(&mut self, command: &Command) {
        match command {
            Command::Stat => {
                let (count, bytes) =
                    self.left().fold((0, 0), |(count, bytes), (_, entry)| (count + 1, bytes + entry.size));
                self.ok(&format!("{count} {bytes}"));
            }
            Command::List(number) => self.listing(*number, |entry| entry.size.to_string()),
            Command::Uidl(number) => self.listing(*number, |entry| entry.unique.clone()),
            Command::Retr(number) => self.message(*number, None),
            Command::Top(number, lines) => self.message(*number, Some(*lines)),
            Command::Dele(number) => match self.index(*number) {
                Some(index) => {
                    if let Some(drop) = &mut self.drop {
                        drop.deleted[index] = true;
                    }
                    self.ok("deleted at QUIT");
                }
                None => self.mistake("no such message"),
            },
            Command::Rset => {
                if let Some(drop) = &mut self.drop {
                    drop.deleted.fill(false);
                }
                self.ok("nothing is deleted");
            }
            _ => self.mistake("not after logging in"),
        }
    }

    /// The messages that are not marked as deleted, with their numbers.
    fn left(&self) -> impl Iterator<Item = (usize, &Entry)> {
        let all = self.drop.iter().flat_map(|drop| drop.entries.iter().zip(&drop.deleted).enumerate());
        all.filter(|(_, (_, deleted))| !**deleted).map(|(index, (entry, _))| (index + 1, entry))
    }

    fn index(&self, number: usize) -> Option<usize> {
        let index = number.checked_sub(1)?;
        self.drop.as_ref()?.deleted.get(index).is_some_and(|deleted| !deleted).then_some(index)
    }

    fn listing(&mut self, number: Option<usize>, tell: fn(&Entry) -> String) {
        match number {
            Some(number) => {
                let found = self.index(number).zip(self.drop.as_ref());
                let told = found.map(|(index, drop)| tell(&drop.entries[index]));
                match told {
                    Some(told) => self.ok(&format!("{number} {told}")),
                    None => self.mistake("no such message"),
                }
            }
            None => {
                let mut text = String::from("+OK\r\n");
                for (number, entry) in self.left() {
                    text.push_str(&format!("{number} {}\r\n", tell(entry)));
                }
                text.push_str(".\r\n");
                self.output.push_back(text.into());
            }
        }
    }

    fn message(&mut self, number: usize, lines: Option<usize>) {
        match self.index(number) {
            Some(index) => {
                self.question = Some(Question::Message(index));
                self.mode = Mode::Asked(Asked::Message(lines));
            }
            None => self.mistake("no such message"),
        }
    }

    fn answered(&mut self, asked: Asked, answer: Answer) {
        match (asked, answer) {
            (Asked::Login, Answer::Maildrop(entries)) => {
                let deleted = vec![false; entries.len()];
                self.ok(&format!("{} messages", entries.len()));
                self.drop = Some(Drop { entries, deleted });
            }
            (Asked::Login, Answer::Refused) => {
                self.failed_logins += 1;
                self.mistake("[AUTH] wrong user or password");
                self.closing |= self.failed_logins >= self.limits.failed_logins;
            }
            (Asked::Login, Answer::Crowded) => {
                self.mistake("[SYS/TEMP] this account has too many connections; close some");
            }
            (Asked::Login, Answer::Elsewhere(node)) => {
                self.mistake(&format!("[SYS/PERM] your mail is on the server {node}, not on this one"));
            }
            (Asked::Message(lines), Answer::Text(text)) => {
                self.output.push_back(Bytes::from_static(b"+OK\r\n"));
                self.output.push_back(stuffed(top(&text, lines)));
            }
            (Asked::Delete, Answer::Done) => {
                self.ok("bye");
                self.closing = true;
            }
            (Asked::Delete, _) => {
                self.output.push_back(Bytes::from_static(b"-ERR [SYS/TEMP] some messages were not deleted\r\n"));
                self.closing = true;
            }
            (Asked::Login | Asked::Message(_), _) => self.mistake("[SYS/TEMP] not at the moment; try again"),
        }
    }
}

impl Session for Pop3Session {
    type Question = Question;
    type Answer = Answer;

    fn input(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Step<Question> {
        loop {
            if let Some(question) = self.question.take() {
                return Step::Ask(question);
            }
            if let Some(output) = self.output.pop_front() {
                return Step::Output(output);
            }
            if self.closing {
                return Step::Close;
            }
            if std::mem::take(&mut self.start_tls) {
                return Step::StartTls;
            }
            if matches!(self.mode, Mode::Asked(_)) || !self.work() {
                if !self.ended {
                    return Step::NeedInput;
                }
                // Without QUIT nothing is deleted (RFC 1939 section 6).
                self.closing = true;
            }
        }
    }

    fn answer(&mut self, answer: Answer) {
        match std::mem::replace(&mut self.mode, Mode::Command) {
            Mode::Asked(asked) => self.answered(asked, answer),
            other => self.mode = other,
        }
    }

    fn is_established(&self) -> bool {
        self.drop.is_some()
    }

    fn tls_started(&mut self) {
        self.input.clear();
        self.user = None;
        self.tls = Tls::On;
    }

    fn end_of_input(&mut self) {
        self.ended = true;
    }

    fn farewell(&mut self, why: Farewell) {
        let text = match why {
            Farewell::TimedOut => "-ERR [SYS/TEMP] nothing was heard for too long\r\n",
            Farewell::ShuttingDown => "-ERR [SYS/TEMP] restarting; try again in a moment\r\n",
            Farewell::LoginOver => "-ERR [AUTH] the account has changed; log in again\r\n",
        };
        self.output.push_back(Bytes::from_static(text.as_bytes()));
        self.closing = true;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const TEXTS: [&str; 3] = ["A: 1\r\n\r\none\r\ntwo\r\n", "B: 2\r\n\r\n.dot\r\nno end", "C: 3\r\n"];

    /// The world: alice has three messages; what is deleted is noted.
    fn answer(question: Question, deleted: &mut Vec<usize>) -> Answer {
        match question {
            Question::Login { user, password } if user == "alice" && password.reveal() == "secret" => {
                let entry = |text: &&str| Entry { size: text.len() as u64, unique: format!("u{}", text.len()) };
                Answer::Maildrop(TEXTS.iter().map(entry).collect())
            }
            Question::Login { .. } => Answer::Refused,
            Question::Message(index) => Answer::Text(Bytes::from_static(TEXTS[index].as_bytes())),
            Question::Delete(indexes) => {
                deleted.extend(indexes);
                Answer::Done
            }
        }
    }

    fn run(session: &mut Pop3Session, said: &[u8], piece: usize) -> (String, Vec<usize>) {
        let (mut heard, mut deleted, mut rest) = (Vec::new(), Vec::new(), said);
        loop {
            match session.next() {
                Step::Output(bytes) => heard.extend_from_slice(&bytes),
                Step::Ask(question) => session.answer(answer(question, &mut deleted)),
                Step::StartTls => {
                    heard.extend_from_slice(b"(tls)\r\n");
                    session.tls_started();
                }
                Step::Compress => panic!("it is not offered"),
                Step::Close => break heard.extend_from_slice(b"(closed)"),
                Step::NeedInput if rest.is_empty() => break,
                Step::NeedInput => {
                    let (now, later) = rest.split_at(piece.min(rest.len()));
                    session.input(now);
                    rest = later;
                }
            }
        }
        (String::from_utf8(heard).unwrap(), deleted)
    }

    fn session() -> Pop3Session {
        Pop3Session::new(Limits::default(), Tls::Offered, Cleartext::Allowed)
    }

    /// What is heard behind the greeting and, if `login`, behind the login.
    #[track_caller]
    fn check(said: &str, want: &str, want_deleted: &[usize]) {
        let login = "USER alice\r\nPASS secret\r\n";
        let (heard, deleted) = run(&mut session(), format!("{login}{said}").as_bytes(), usize::MAX);
        let before = "+OK Chainmail POP3 ready\r\n+OK now the password\r\n+OK 3 messages\r\n";
        assert_eq!(heard.strip_prefix(before).unwrap(), want);
        assert_eq!(deleted, want_deleted);
    }

    #[test]
    fn reading() {
        check("STAT\r\n", "+OK 3 44\r\n", &[]);
        let listed = "+OK\r\n1 18\r\n2 20\r\n3 6\r\n.\r\n+OK 2 20\r\n-ERR no such message\r\n";
        check("LIST\r\nLIST 2\r\nLIST 9\r\n", listed, &[]);
        check("UIDL 3\r\n", "+OK 3 u6\r\n", &[]);
    }

    #[test]
    fn texts_are_stuffed_and_ended() {
        check("RETR 2\r\n", "+OK\r\nB: 2\r\n\r\n..dot\r\nno end\r\n.\r\n", &[]);
        check("TOP 1 1\r\n", "+OK\r\nA: 1\r\n\r\none\r\n.\r\n", &[]);
        check("TOP 1 0\r\n", "+OK\r\nA: 1\r\n\r\n.\r\n", &[]);
        check("TOP 3 5\r\n", "+OK\r\nC: 3\r\n.\r\n", &[]);
    }

    #[test]
    fn deletions_are_final_at_quit_alone() {
        check(
            "DELE 1\r\nDELE 3\r\nQUIT\r\n",
            "+OK deleted at QUIT\r\n+OK deleted at QUIT\r\n+OK bye\r\n(closed)",
            &[0, 2],
        );
        check("DELE 1\r\nRETR 1\r\n", "+OK deleted at QUIT\r\n-ERR no such message\r\n", &[]);
        check(
            "DELE 1\r\nRSET\r\nQUIT\r\n",
            "+OK deleted at QUIT\r\n+OK nothing is deleted\r\n+OK bye\r\n(closed)",
            &[],
        );
        let mut session = session();
        run(&mut session, b"USER alice\r\nPASS secret\r\nDELE 1\r\n", 9);
        session.end_of_input();
        assert_eq!(run(&mut session, b"", 1), ("(closed)".into(), vec![]));
    }

    #[test]
    fn sasl() {
        let good = STANDARD.encode("\0alice\0secret");
        for said in [format!("AUTH PLAIN {good}\r\n"), format!("AUTH PLAIN\r\n{good}\r\n")] {
            assert!(run(&mut session(), said.as_bytes(), 5).0.ends_with("+OK 3 messages\r\n"), "{said}");
        }
        for said in ["AUTH PLAIN\r\n*\r\n", "AUTH PLAIN !!\r\n", "AUTH PLAIN AAAA\r\n"] {
            assert!(run(&mut session(), said.as_bytes(), 5).0.contains("-ERR"), "{said}");
        }
    }

    #[test]
    fn no_password_in_the_clear() {
        let mut session = Pop3Session::new(Limits::default(), Tls::Offered, Cleartext::Refused);
        let (heard, _) = run(&mut session, b"CAPA\r\nUSER alice\r\n", usize::MAX);
        assert!(heard.contains("STLS") && !heard.contains("SASL") && heard.contains("-ERR [AUTH] no password"));
        let (heard, _) = run(&mut session, b"STLS\r\nUSER eve\r\n", usize::MAX);
        assert_eq!(heard, "+OK begin TLS\r\n(tls)\r\n", "what came in the clear is forgotten");
        assert!(run(&mut session, b"USER alice\r\nPASS secret\r\n", 3).0.ends_with("+OK 3 messages\r\n"));
    }

    #[test]
    fn too_many_mistakes() {
        assert!(run(&mut session(), &b"NONSENSE\r\n".repeat(20), 100).0.ends_with("(closed)"));
        assert!(run(&mut session(), &b"USER a\r\nPASS b\r\n".repeat(3), 100).0.ends_with("(closed)"));
        let (heard, _) = run(&mut session(), &[&[b'x'; 5000][..], b"\r\nCAPA\r\n"].concat(), 100);
        assert!(heard.contains("-ERR line too long\r\n+OK\r\nTOP"));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(said in "(CAPA|USER alice|PASS secret|LIST|RETR 1|DELE 2|AUTH PLAIN|QUIT|x|\r\n\
    ){0,12}", piece in 1usize..8) {
            let whole = run(&mut session(), said.as_bytes(), usize::MAX);
            prop_assert_eq!(run(&mut session(), said.as_bytes(), piece), whole);
        }

        #[test]
        fn no_bytes_make_it_panic(said: Vec<u8>) {
            run(&mut session(), &said, 7);
        }
    }
}
