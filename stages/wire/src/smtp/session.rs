//! The dialogue: which command is in order when, what is asked of the world, and what the client hears.
//!
//! A mistake costs the client a reply and a place in its count of errors, never the session's place in the stream. The
//! session remembers which bytes the client sent after it could have read our final reply: only they prove that it did.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::command::{Command, Recipient, Sender};
use super::data::{Bounds, Progress, Reader};
use super::reply::Reply;
use crate::session::{Farewell, Session, Step};

/// What a client may take up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a command line with its end. RFC 5321 asks for 512 and more for each extension; DSN's ORCPT needs most.
    pub line: usize,
    /// Bytes of a message; told to the client by SIZE. 25 MiB is what large providers take.
    pub message: u64,
    /// Bytes of a message's header section. Real ones have 4 to 10 KiB.
    pub header: u64,
    /// Recipients of one message. RFC 5321 section 4.5.3.1.8 asks for 100 at least.
    pub recipients: usize,
    /// Commands that get an error, before the connection is closed.
    pub errors: u32,
    /// Commands in a row that bring no mail, before the connection is closed.
    pub idle_commands: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { line: 2048, message: 25 << 20, header: 256 << 10, recipients: 1000, errors: 20, idle_commands: 100 }
    }
}

/// Whether the client can have TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// It is offered.
    Offered,
    /// It is on.
    On,
    /// There is none.
    Unavailable,
}

/// A message that has come whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// What the client calls itself.
    pub helo: String,
    /// Whether it said EHLO (`ESMTP` in the Received field) or HELO.
    pub extended: bool,
    /// MAIL.
    pub sender: Sender,
    /// RCPT; never empty.
    pub recipients: Vec<Recipient>,
    /// Exactly what the client sent, without dot-stuffing.
    pub body: Bytes,
}

/// What the session asks of the world.
#[derive(Debug, PartialEq, Eq)]
pub enum Question {
    /// May this sender begin? Answer: accept or refuse.
    Sender(Sender),
    /// Does this recipient exist? Answer: accept or refuse.
    Recipient(Recipient),
    /// Is there room for a message (declared size, if any)? Answer: reserve or refuse.
    Data {
        /// From SIZE.
        declared: Option<u64>,
    },
    /// The message holds so many bytes now, more than was reserved. Answer: reserve a larger total, or refuse.
    Grow {
        /// Bytes.
        total: u64,
    },
    /// Here is a message. Answer: the final reply, whenever it is known.
    Message(Box<Message>),
    /// The client went on after our final reply: it must have read it. Answer: noted.
    WentOn,
    /// The transaction is over without a message; what was reserved is free. Answer: noted.
    Abandoned,
}

/// What the world says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Accept,
    /// Yes, and so many bytes may be held in all.
    Reserve(u64),
    /// No, or the final word about a message.
    Reply(Reply),
    /// Heard.
    Noted,
}

#[derive(Debug)]
enum Mode {
    Command,
    Data(Reader),
    /// The last question decides what the answer means.
    Asked(Asked),
}

#[derive(Debug)]
enum Asked {
    Sender(Sender),
    Recipient(Recipient),
    Data,
    Grow(Reader),
    Message,
}

#[derive(Debug)]
struct Transaction {
    sender: Sender,
    recipients: Vec<Recipient>,
}

/// One client's dialogue.
#[derive(Debug)]
pub struct SmtpSession {
    hostname: String,
    limits: Limits,
    tls: Tls,
    input: BytesMut,
    output: VecDeque<Bytes>,
    questions: VecDeque<Question>,
    mode: Mode,
    client: Option<(String, bool)>,
    transaction: Option<Transaction>,
    errors: u32,
    idle: u32,
    /// A line too long is being read over.
    skipping: bool,
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
            limits,
            tls,
            input: BytesMut::new(),
            output: VecDeque::from([greeting]),
            questions: VecDeque::new(),
            mode: Mode::Command,
            client: None,
            transaction: None,
            errors: 0,
            idle: 0,
            skipping: false,
            unproven: false,
            noting: false,
            start_tls: false,
            closing: false,
            ended: false,
        }
    }

    fn say(&mut self, reply: &Reply) {
        self.output.push_back(reply.encode());
    }

    fn mistake(&mut self, reply: &Reply) {
        self.say(reply);
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

    fn line(&mut self) -> Option<Result<Bytes, Reply>> {
        let Some(end) = memchr::memchr(b'\n', &self.input) else {
            if self.input.len() >= self.limits.line {
                self.input.clear();
                self.skipping = true;
            }
            return None;
        };
        let line = self.input.split_to(end + 1).freeze();
        if std::mem::take(&mut self.skipping) || line.len() > self.limits.line {
            return Some(Err(Reply::line_too_long()));
        }
        let Some(text) = line.strip_suffix(b"\r\n") else { return Some(Err(Reply::bare_line_end())) };
        if memchr::memchr2(b'\r', 0, text).is_some() {
            return Some(Err(Reply::bare_line_end()));
        }
        Some(Ok(line.slice(..text.len())))
    }

    /// Works off one line. Says whether there was one.
    fn work(&mut self) -> bool {
        match self.line() {
            None => false,
            Some(Err(reply)) => {
                self.mistake(&reply);
                true
            }
            Some(Ok(line)) => {
                match Command::parse(&line) {
                    Ok(command) => self.obey(command),
                    Err(reply) => self.mistake(&reply),
                }
                true
            }
        }
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
        }
    }

    fn ehlo(&mut self, name: String) {
        self.abandon();
        self.client = Some((name, true));
        let tls = if self.tls == Tls::Offered { "250-STARTTLS\r\n" } else { "" };
        let (hostname, size) = (&self.hostname, self.limits.message);
        let text = format!(
            "250-{hostname}\r\n250-PIPELINING\r\n250-SIZE {size}\r\n{tls}250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
        );
        self.output.push_back(text.into());
    }

    fn mail(&mut self, sender: Sender) {
        if self.client.is_none() {
            return self.mistake(&Reply::out_of_order("Say EHLO first"));
        }
        if self.transaction.is_some() {
            return self.mistake(&Reply::out_of_order("A sender was given already; RSET begins anew"));
        }
        if sender.size.is_some_and(|size| size > self.limits.message) {
            return self.mistake(&Reply::too_large(self.limits.message));
        }
        self.ask(Question::Sender(sender.clone()), Asked::Sender(sender));
    }

    fn rcpt(&mut self, recipient: Recipient) {
        let Some(transaction) = &self.transaction else {
            return self.mistake(&Reply::out_of_order("Say MAIL first"));
        };
        if transaction.recipients.len() >= self.limits.recipients {
            // Not a mistake of the client's: RFC 5321 section 4.5.3.1.10 tells it to come back with the rest.
            return self.say(&Reply::too_many_recipients());
        }
        self.ask(Question::Recipient(recipient.clone()), Asked::Recipient(recipient));
    }

    fn data(&mut self) {
        match &self.transaction {
            None => self.mistake(&Reply::out_of_order("Say MAIL first")),
            Some(transaction) if transaction.recipients.is_empty() => self.mistake(&Reply::no_recipients()),
            Some(transaction) => {
                let declared = transaction.sender.size;
                self.ask(Question::Data { declared }, Asked::Data);
            }
        }
    }

    fn start_tls(&mut self) {
        match self.tls {
            Tls::On => self.mistake(&Reply::out_of_order("TLS is on already")),
            Tls::Unavailable => self.mistake(&Reply::tls_unavailable()),
            // Commands behind STARTTLS in the same packet came in the clear; whoever slipped them in must not be heard
            // under TLS. Refusing shows an honest client its bug, dropping them would leave it waiting.
            Tls::Offered if !self.input.is_empty() => {
                self.input.clear();
                self.close_with(&Reply::out_of_order("Nothing may follow STARTTLS before TLS has begun"));
            }
            Tls::Offered => {
                self.abandon();
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
                return self.mistake(&reply);
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
                self.mode = Mode::Data(Reader::new(bounds, reserved));
                self.say(&Reply::send_message());
            }
            (Asked::Grow(mut reader), Answer::Reserve(reserved)) => {
                reader.reserve(reserved);
                self.mode = Mode::Data(reader);
            }
            (Asked::Grow(mut reader), Answer::Reply(reply)) => {
                reader.refuse(reply);
                self.mode = Mode::Data(reader);
            }
            (Asked::Message, Answer::Reply(reply)) => {
                self.idle = 0;
                self.unproven = true;
                self.say(&reply);
            }
            (Asked::Sender(_) | Asked::Recipient(_) | Asked::Data, Answer::Reply(reply)) => self.mistake(&reply),
            // The backend gave an answer that its question does not have: the client is told to come again.
            (Asked::Message, _) => {
                self.unproven = true;
                self.say(&Reply::local_error());
            }
            (Asked::Grow(mut reader), _) => {
                reader.refuse(Reply::local_error());
                self.mode = Mode::Data(reader);
            }
            (_, _) => self.mistake(&Reply::local_error()),
        }
    }
}

impl Session for SmtpSession {
    type Question = Question;
    type Answer = Answer;

    fn input(&mut self, bytes: &[u8]) {
        if std::mem::take(&mut self.unproven) {
            // The driver reads only after everything was written: these bytes came after our final reply.
            self.questions.push_back(Question::WentOn);
        }
        self.input.extend_from_slice(bytes);
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

    fn end_of_input(&mut self) {
        self.ended = true;
    }

    fn farewell(&mut self, why: Farewell) {
        let reply = match why {
            Farewell::TimedOut => Reply::timed_out(&self.hostname),
            Farewell::ShuttingDown => Reply::shutting_down(&self.hostname),
        };
        self.close_with(&reply);
    }
}
