//! The dialogue: which command is in order when, what is asked of the world, and what the client hears.
//!
//! A mistake costs the client a reply and a place in its count of errors, never the session's place in the stream. The
//! session remembers which bytes came after our final reply was written: they are taken as a sign that the client has
//! read it. Bytes that were under way at that moment prove nothing, and cannot be told from the others: a client that
//! sends ahead within that one round trip, and is cut off, is believed to know what it does not. So the moment of
//! [`Question::WentOn`] is the one step that depends on how the input was split.

use std::collections::VecDeque;

use bytes::Bytes;

use super::command::{Command, Recipient, Sender};
use super::data::{Bounds, Progress, Reader};
use super::input::Input;
use super::limits::Limits;
use super::line::Lines;
use super::mode::{Asked, Mode, Transaction};
use super::question::{Answer, Message, Question};
use super::reply::{self, Reply};
use crate::session::{Farewell, Session, Step, Tls};

/// One client's dialogue.
#[derive(Debug)]
pub struct SmtpSession {
    hostname: String,
    limits: Limits,
    tls: Tls,
    input: Input,
    lines: Lines,
    output: VecDeque<Bytes>,
    questions: VecDeque<Question>,
    mode: Mode,
    client: Option<(String, bool)>,
    transaction: Option<Transaction>,
    errors: u32,
    idle: u32,
    /// Messages that got their final reply.
    mails: u32,
    /// EHLO names DSN.
    dsn: bool,
    /// A final reply was given, and the client has not shown yet that it read it.
    unproven: bool,
    /// The question last asked only tells something.
    noting: bool,
    start_tls: bool,
    closing: bool,
    ended: bool,
}

impl SmtpSession {
    /// A session that greets as `hostname`.
    pub fn new(hostname: impl Into<String>, limits: Limits, tls: Tls) -> Self {
        let hostname = hostname.into();
        let greeting = Reply::greeting(&hostname).encode();
        Self {
            hostname,
            lines: Lines::new(limits.line),
            limits,
            tls,
            input: Input::default(),
            output: VecDeque::from([greeting]),
            questions: VecDeque::new(),
            mode: Mode::Command,
            client: None,
            transaction: None,
            errors: 0,
            idle: 0,
            mails: 0,
            dsn: false,
            unproven: false,
            noting: false,
            start_tls: false,
            closing: false,
            ended: false,
        }
    }

    /// Names DSN (RFC 3461) in the reply to EHLO. Its parameters are taken and handed on in any case; to offer it is to
    /// promise that reports are sent as they ask.
    #[must_use]
    pub fn offering_dsn(mut self) -> Self {
        self.dsn = true;
        self
    }

    fn say(&mut self, reply: &Reply) {
        self.output.push_back(reply.encode());
    }

    /// Refuses something. What the client may try again later is not held against it.
    fn refuse(&mut self, reply: &Reply) {
        self.say(reply);
        if !reply.is_permanent() {
            return;
        }
        self.errors += 1;
        if self.errors >= self.limits.errors {
            self.close_with(&Reply::too_many_errors());
        }
    }

    fn close_with(&mut self, reply: &Reply) {
        self.abandon();
        self.say(reply);
        self.closing = true;
    }

    /// Ends the transaction without a message.
    fn abandon(&mut self) {
        let reading = !matches!(self.mode, Mode::Command);
        if self.transaction.take().is_some() || reading {
            self.questions.push_back(Question::Abandoned);
        }
        self.mode = Mode::Command;
    }

    /// Works off one line. Says whether there was one.
    fn work(&mut self) -> bool {
        let Some(line) = self.lines.take(&mut self.input) else { return false };
        match line.and_then(|line| Command::parse(&line)) {
            Ok(command) => self.obey(command),
            Err(reply) => self.refuse(&reply),
        }
        true
    }

    fn obey(&mut self, command: Command) {
        if !matches!(command, Command::Mail(_) | Command::Rcpt(_) | Command::Data | Command::Quit) {
            self.idle += 1;
            if self.idle > self.limits.idle_commands {
                return self.close_with(&Reply::too_idle());
            }
        }
        match command {
            Command::Ehlo(name) => self.ehlo(name),
            Command::Helo(name) => {
                self.abandon();
                self.client = Some((name, false));
                self.say(&Reply::hello(&self.hostname));
            }
            Command::Mail(sender) => self.mail(sender),
            Command::Rcpt(recipient) => self.rcpt(recipient),
            Command::Data => self.data(),
            Command::Rset => {
                self.abandon();
                self.say(&Reply::ok());
            }
            Command::Noop => self.say(&Reply::ok()),
            Command::Vrfy => self.say(&Reply::cannot_verify()),
            Command::Help => self.say(&Reply::help()),
            Command::StartTls => self.start_tls(),
            Command::Quit => self.close_with(&Reply::bye()),
            Command::OtherProtocol => self.close_with(&Reply::other_protocol()),
        }
    }

    fn ehlo(&mut self, name: String) {
        self.abandon();
        self.client = Some((name, true));
        self.output.push_back(reply::offers(&self.hostname, self.limits.message, self.tls, self.dsn));
    }

    fn mail(&mut self, sender: Sender) {
        if self.client.is_none() {
            return self.refuse(&Reply::out_of_order("Say EHLO first"));
        }
        if self.transaction.is_some() {
            return self.refuse(&Reply::out_of_order("A sender was given already; RSET begins anew"));
        }
        if self.limits.mails != 0 && self.mails >= self.limits.mails {
            return self.close_with(&Reply::enough_mail());
        }
        if sender.size.is_some_and(|size| size > self.limits.message) {
            return self.refuse(&Reply::too_large(self.limits.message));
        }
        self.ask(Question::Sender(sender.clone()), Asked::Sender(sender));
    }

    fn rcpt(&mut self, recipient: Recipient) {
        let Some(transaction) = &self.transaction else {
            return self.refuse(&Reply::out_of_order("Say MAIL first"));
        };
        if transaction.recipients.len() >= self.limits.recipients {
            // Not a mistake of the client's: RFC 5321 section 4.5.3.1.10 tells it to come back with the rest.
            return self.say(&Reply::too_many_recipients());
        }
        self.ask(Question::Recipient(recipient.clone()), Asked::Recipient(recipient));
    }

    fn data(&mut self) {
        match &self.transaction {
            None => self.refuse(&Reply::out_of_order("Say MAIL first")),
            Some(transaction) if transaction.recipients.is_empty() => self.refuse(&Reply::no_recipients()),
            Some(transaction) => {
                let declared = transaction.sender.size;
                self.ask(Question::Data { declared }, Asked::Data);
            }
        }
    }

    fn start_tls(&mut self) {
        match self.tls {
            Tls::On => self.refuse(&Reply::out_of_order("TLS is on already")),
            Tls::Unavailable => self.refuse(&Reply::tls_unavailable()),
            // Commands behind STARTTLS in the same packet came in the clear; whoever slipped them in must not be heard
            // under TLS. Refusing shows an honest client its bug, dropping them would leave it waiting.
            Tls::Offered if !self.input.is_empty() => {
                self.input.clear();
                self.close_with(&Reply::out_of_order("Nothing may follow STARTTLS before TLS has begun"));
            }
            Tls::Offered => {
                self.abandon();
                self.client = None;
                self.say(&Reply::start_tls());
                self.start_tls = true;
            }
        }
    }

    fn ask(&mut self, question: Question, asked: Asked) {
        self.questions.push_back(question);
        self.mode = Mode::Asked(asked);
    }

    fn read_on(&mut self, mut reader: Reader) -> bool {
        match reader.read(&mut self.input) {
            Progress::More => {
                self.mode = Mode::Data(reader);
                false
            }
            Progress::Outgrown(total) => {
                self.ask(Question::Grow { total }, Asked::Grow(reader));
                true
            }
            Progress::End => {
                self.message_read(reader);
                true
            }
        }
    }

    fn message_read(&mut self, reader: Reader) {
        self.mode = Mode::Command;
        let body = match reader.finish() {
            Ok(body) => body,
            Err(reply) => {
                self.abandon();
                return self.refuse(&reply);
            }
        };
        if let (Some(transaction), Some((helo, extended))) = (self.transaction.take(), self.client.clone()) {
            let Transaction { sender, recipients } = transaction;
            let message = Message { helo, extended, sender, recipients, body };
            self.ask(Question::Message(Box::new(message)), Asked::Message);
        }
    }

    fn answered(&mut self, asked: Asked, answer: Answer) {
        match (asked, answer) {
            (Asked::Sender(sender), Answer::Accept) => {
                self.transaction = Some(Transaction { sender, recipients: Vec::new() });
                self.say(&Reply::sender_ok());
            }
            (Asked::Recipient(recipient), Answer::Accept) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.recipients.push(recipient);
                }
                self.say(&Reply::recipient_ok());
            }
            (Asked::Data, Answer::Reserve(reserved)) => {
                let bounds = Bounds { message: self.limits.message, header: self.limits.header };
                let declared = self.transaction.as_ref().and_then(|transaction| transaction.sender.size);
                self.mode = Mode::Data(Reader::new(bounds, declared, reserved));
                self.say(&Reply::send_message());
            }
            (Asked::Grow(mut reader), Answer::Reserve(reserved)) => {
                reader.reserve(reserved);
                self.mode = Mode::Data(reader);
            }
            (Asked::Grow(mut reader), answer) => {
                reader.refuse(answer.into_reply());
                self.mode = Mode::Data(reader);
            }
            (Asked::Message, answer) => {
                self.idle = 0;
                self.mails = self.mails.saturating_add(1);
                self.unproven = true;
                let reply = answer.into_reply();
                self.errors = if reply.is_positive() { 0 } else { self.errors };
                self.say(&reply);
            }
            (Asked::Sender(_) | Asked::Recipient(_) | Asked::Data, answer) => self.refuse(&answer.into_reply()),
        }
    }
}

impl Session for SmtpSession {
    type Question = Question;
    type Answer = Answer;

    fn input(&mut self, bytes: &[u8]) {
        // Everything was written before these bytes were read, though not before they were sent. The rest of a command
        // line that had begun before does not count, but message content does: it answers a 354.
        if self.unproven && (self.input.is_empty() || matches!(self.mode, Mode::Data(_))) {
            self.unproven = false;
            self.questions.push_back(Question::WentOn);
        }
        self.input.push(bytes);
    }

    fn early_input(&mut self, bytes: &[u8]) {
        self.input.push(bytes);
    }

    fn next(&mut self) -> Step<Question> {
        loop {
            if let Some(question) = self.questions.pop_front() {
                self.noting = matches!(question, Question::WentOn | Question::Abandoned);
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
            let went_on = match std::mem::replace(&mut self.mode, Mode::Command) {
                Mode::Command => self.work(),
                Mode::Data(reader) => self.read_on(reader),
                Mode::Asked(asked) => {
                    self.mode = Mode::Asked(asked);
                    false
                }
            };
            if !went_on {
                if !self.ended {
                    self.input.rest();
                    return Step::NeedInput;
                }
                self.abandon();
                self.closing = true;
            }
        }
    }

    fn answer(&mut self, answer: Answer) {
        if std::mem::take(&mut self.noting) {
            // The dialogue goes on where it was.
            return;
        }
        match std::mem::replace(&mut self.mode, Mode::Command) {
            Mode::Asked(asked) => self.answered(asked, answer),
            other => self.mode = other,
        }
    }

    fn tls_started(&mut self) {
        self.input.clear();
        self.tls = Tls::On;
        // RFC 3207 section 4.2: what was said in the clear is forgotten.
        self.client = None;
        self.transaction = None;
        self.mode = Mode::Command;
    }

    fn takes_much(&self) -> bool {
        matches!(self.mode, Mode::Data(_))
    }

    fn end_of_input(&mut self) {
        self.ended = true;
    }

    fn farewell(&mut self, why: Farewell) {
        let reply = match why {
            Farewell::TimedOut => Reply::timed_out(&self.hostname),
            // Logins over SMTP last as long as a mail.
            Farewell::ShuttingDown | Farewell::LoginOver => Reply::shutting_down(&self.hostname),
        };
        self.close_with(&reply);
    }
}
