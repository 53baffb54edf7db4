//! The dialogue: what is in order when, what is asked of the world, and what the client hears.

mod append;
mod capabilities;
mod changes;
mod compress;
mod condstore;
mod copy;
mod fetch;
mod flags;
mod id;
mod idle;
mod job;
mod levels;
mod listing;
mod login;
mod mailboxes;
mod manage;
mod messages;
mod naming;
mod order;
mod quota;
mod recent;
mod search;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use imap_codec::decode::Decoder as _;
use imap_codec::fragmentizer::{FragmentInfo, Fragmentizer};
use imap_codec::{AuthenticateDataCodec, CommandCodec};
use imap_types::IntoStatic as _;
use imap_types::auth::AuthenticateData;
use imap_types::command::{Command, CommandBody};
use imap_types::core::LiteralMode;

use self::append::Append;
use self::compress::Compress;
pub(super) use self::job::UidForm;
use self::job::{Job, Running, Selected};
use super::extended::{deep, quoted, search::Returns};
use super::question::{Answer, Limits, Question};
use crate::session::{Cleartext, Farewell, Session, Step, Tls};

/// One client's dialogue.
pub struct ImapSession {
    limits: Limits,
    tls: Tls,
    cleartext: Cleartext,
    /// What came and was not looked at yet. The fragmentizer gets it line by line, so that nothing is left in it when a
    /// message of an APPEND begins, which does not go through it.
    incoming: BytesMut,
    fragments: Fragmentizer,
    /// The APPEND whose message is being received.
    append: Option<Append>,
    output: VecDeque<Bytes>,
    question: Option<Question>,
    running: Option<Running>,
    /// The tag of an AUTHENTICATE whose response is awaited.
    sasl: Option<String>,
    /// The tag of an IDLE that goes on.
    idling: Option<String>,
    tells: condstore::Tells,
    logged_in: bool,
    selected: Option<Selected>,
    /// What the command that is read wants to be returned.
    returns: Option<Returns>,
    errors: u32,
    failed_logins: u32,
    start_tls: bool,
    compress: Compress,
    closing: bool,
    ended: bool,
}

impl ImapSession {
    /// A session that greets its client.
    pub fn new(limits: Limits, tls: Tls, cleartext: Cleartext) -> Self {
        let mut session = Self {
            incoming: BytesMut::new(),
            fragments: Fragmentizer::new(limits.stranger),
            append: None,
            limits,
            tls,
            cleartext,
            output: VecDeque::new(),
            question: None,
            running: None,
            sasl: None,
            idling: None,
            tells: condstore::Tells::default(),
            logged_in: false,
            selected: None,
            returns: None,
            errors: 0,
            failed_logins: 0,
            start_tls: false,
            compress: Compress::Off,
            closing: false,
            ended: false,
        };
        let greeting = format!("* OK [CAPABILITY {}] Chainmail IMAP ready\r\n", session.capabilities());
        session.put(greeting);
        session
    }

    fn put(&mut self, text: impl Into<Bytes>) {
        self.output.push_back(text.into());
    }

    fn done(&mut self, tag: &str, result: &str) {
        self.put(format!("{tag} {result}\r\n"));
    }

    fn mistake(&mut self, tag: &str, text: &str) {
        self.done(tag, &format!("BAD {text}"));
        self.errors += 1;
        if self.errors >= self.limits.errors {
            self.put("* BYE too many errors\r\n");
            self.closing = true;
        }
    }

    /// Gives back what a client that waits does not need. Ten thousand of them are idle at once.
    fn rest(&mut self) {
        self.output = VecDeque::new();
        if self.incoming.is_empty() && self.fragments.is_message_complete() {
            let most = if self.logged_in { self.limits.command } else { self.limits.stranger };
            self.fragments = Fragmentizer::new(most);
            self.incoming = BytesMut::new();
        }
    }

    fn may_login(&self) -> bool {
        self.tls == Tls::On || self.cleartext == Cleartext::Allowed
    }

    /// Works off what has come. Says whether anything was done.
    fn work(&mut self) -> bool {
        if self.append.is_some() {
            return self.receive();
        }
        let Some(fragment) = self.next_fragment() else { return false };
        if let FragmentInfo::Line { announcement: Some(announcement), .. } = fragment {
            let most = if self.logged_in { self.limits.command } else { self.limits.stranger };
            let too_long = announcement.length > most || self.fragments.is_max_message_size_exceeded();
            // Inside IDLE nothing but DONE is a command.
            let is_idle = self.idling.is_some();
            if self.logged_in && !is_idle && self.begin_append(announcement) {
                return true;
            }
            let tag = self.fragments.decode_tag().map_or("*".to_owned(), |tag| tag.inner().to_owned());
            match announcement.mode {
                LiteralMode::Sync if is_idle => {
                    self.fragments.skip_message();
                    let tag = self.idling.take().unwrap_or_default();
                    self.mistake(&tag, "DONE was expected");
                }
                LiteralMode::Sync if too_long => {
                    // The client waits for our word and sends the literal only after it: the place is kept.
                    self.fragments.skip_message();
                    self.mistake(&tag, "[TOOBIG] the literal is too long");
                }
                LiteralMode::Sync => self.put("+ go on\r\n"),
                // It comes in any case and is read over.
                LiteralMode::NonSync => {}
            }
        }
        if self.fragments.is_message_complete() {
            self.message();
        }
        true
    }

    /// The next line or literal, once it has come.
    fn next_fragment(&mut self) -> Option<FragmentInfo> {
        loop {
            let fragment = self.fragments.progress();
            if fragment.is_some() || self.incoming.is_empty() {
                return fragment;
            }
            let line = memchr::memchr(b'\n', &self.incoming).map_or(self.incoming.len(), |at| at + 1);
            self.fragments.enqueue_bytes(&self.incoming.split_to(line));
        }
    }

    fn message(&mut self) {
        if let Some(tag) = self.idling.take() {
            return self.end_idle(&tag);
        }
        if let Some(tag) = self.sasl.take() {
            let data = match self.fragments.decode_message(&AuthenticateDataCodec::default()) {
                Ok(AuthenticateData::Continue(data)) => Some(data.declassify().to_vec()),
                Ok(AuthenticateData::Cancel) | Err(_) => None,
            };
            return match data {
                Some(data) => self.plain(tag, &data),
                None => self.mistake(&tag, "authentication given up"),
            };
        }
        if self.read_listing() || self.read_long_id() {
            return;
        }
        if let Some(command) = self.read_extended() {
            return self.obey(command);
        }
        match self.read() {
            Some(command) => self.obey(command),
            None => {
                let tag = self.fragments.decode_tag().map_or("*".to_owned(), |tag| tag.inner().to_owned());
                self.mistake(&tag, "the command cannot be read");
            }
        }
    }

    fn read(&self) -> Option<Command<'static>> {
        if self.is_whole()
            && self.tells.utf8()
            && let Some(message) = quoted::rid(self.fragments.message_bytes())
        {
            return decode(&message);
        }
        let read = self.fragments.decode_message(&CommandCodec::default()).ok().map(|command| command.into_static());
        read.or_else(|| self.is_whole().then(|| deep::read(self.fragments.message_bytes())).flatten())
    }

    /// Whether all of a command is there.
    fn is_whole(&self) -> bool {
        !self.fragments.is_max_message_size_exceeded() && !self.fragments.is_message_poisoned()
    }

    fn obey(&mut self, command: Command<'static>) {
        let (tag, body) = (command.tag.inner().to_owned(), command.body);
        match body {
            CommandBody::Capability => {
                self.put(format!("* CAPABILITY {}\r\n", self.capabilities()));
                self.done(&tag, "OK CAPABILITY done");
            }
            // RFC 2971: in any state.
            CommandBody::Id { .. } => self.identify(&tag),
            CommandBody::Logout => {
                self.put("* BYE logging out\r\n");
                self.done(&tag, "OK LOGOUT done");
                self.closing = true;
            }
            CommandBody::Noop | CommandBody::Check if self.selected.is_some() => {
                self.refresh(tag, "NOOP", Job::Refresh { expunge: true })
            }
            CommandBody::Noop | CommandBody::Check => self.done(&tag, "OK NOOP done"),
            body if !self.logged_in => self.before_login(tag, body),
            CommandBody::Idle => self.idle(tag),
            CommandBody::Compress { .. } => self.compress(&tag),
            CommandBody::Enable { capabilities } => self.enable(&tag, capabilities.as_ref()),
            body => self.after_login(tag, body),
        }
    }
}

/// Reads a command that is there as a whole.
fn decode(message: &[u8]) -> Option<Command<'static>> {
    match CommandCodec::default().decode(message) {
        Ok((rest, command)) => rest.is_empty().then(|| command.into_static()),
        Err(_) => deep::read(message),
    }
}

impl Session for ImapSession {
    type Question = Question;
    type Answer = Answer;

    fn input(&mut self, bytes: &[u8]) {
        self.incoming.extend_from_slice(bytes);
    }

    fn wants_news(&self) -> bool {
        self.is_idle()
    }

    fn news(&mut self) {
        self.look_again();
    }

    fn next(&mut self) -> Step<Question> {
        loop {
            if let Some(question) = self.question.take() {
                return Step::Ask(question);
            }
            if let Some(output) = self.output.pop_front() {
                return Step::Output(output);
            }
            // What a command still has to say goes out in portions.
            if self.running.is_some() {
                self.go_on();
                continue;
            }
            if self.closing {
                return Step::Close;
            }
            if std::mem::take(&mut self.start_tls) {
                return Step::StartTls;
            }
            if self.compress == Compress::Asked {
                return Step::Compress;
            }
            if !self.work() {
                if !self.ended {
                    self.rest();
                    return Step::NeedInput;
                }
                self.closing = true;
            } else if self.is_long() {
                // It begins with a step of its own, before which the driver is told.
                return Step::Output(Bytes::new());
            }
        }
    }

    fn takes_long(&self) -> bool {
        self.is_long()
    }

    fn answer(&mut self, answer: Answer) {
        self.answered(answer);
    }

    fn takes_much(&self) -> bool {
        self.is_receiving()
    }

    fn is_established(&self) -> bool {
        self.logged_in
    }

    fn tls_started(&mut self) {
        self.incoming.clear();
        self.fragments = Fragmentizer::new(self.limits.stranger);
        self.tls = Tls::On;
    }

    fn compressed(&mut self) {
        self.incoming.clear();
        self.fragments = Fragmentizer::new(self.limits.command);
        self.compress = Compress::On;
    }

    fn end_of_input(&mut self) {
        self.ended = true;
    }

    fn farewell(&mut self, why: Farewell) {
        self.put(match why {
            Farewell::TimedOut => "* BYE nothing was heard for too long\r\n",
            Farewell::ShuttingDown => "* BYE restarting; try again in a moment\r\n",
            Farewell::LoginOver => "* BYE the account has changed; log in again\r\n",
        });
        self.closing = true;
    }
}

#[cfg(test)]
mod search_tests;
#[cfg(test)]
mod tests;
