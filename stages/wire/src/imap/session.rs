//! The dialogue: what is in order when, what is asked of the world, and what the client hears.

use std::collections::VecDeque;

use bytes::Bytes;
use imap_codec::fragmentizer::{FragmentInfo, Fragmentizer};
use imap_codec::{AuthenticateDataCodec, CommandCodec};
use imap_types::IntoStatic as _;
use imap_types::auth::{AuthMechanism, AuthenticateData};
use imap_types::command::{Command, CommandBody};
use imap_types::core::LiteralMode;
use imap_types::fetch::MessageDataItemName as Item;
use imap_types::flag::{Flag, StoreResponse, StoreType};
use imap_types::mailbox::{ListMailbox, Mailbox as MailboxName};
use imap_types::search::SearchKey;
use imap_types::sequence::SequenceSet;
use imap_types::status::StatusDataItemName;

use super::{encode, fetch, names, search};
use crate::secret::Secret;
use crate::session::{Farewell, Session, Step};

/// The system flags, a bit each.
pub mod flags {
    /// Read.
    pub const SEEN: i64 = 1;
    /// Answered.
    pub const ANSWERED: i64 = 2;
    /// Flagged.
    pub const FLAGGED: i64 = 4;
    /// To be expunged.
    pub const DELETED: i64 = 8;
    /// A draft.
    pub const DRAFT: i64 = 16;

    pub(in crate::imap) const NAMES: [(i64, &str); 5] = [
        (SEEN, "\\Seen"),
        (ANSWERED, "\\Answered"),
        (FLAGGED, "\\Flagged"),
        (DELETED, "\\Deleted"),
        (DRAFT, "\\Draft"),
    ];
}

/// What a client may take up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one command with its literals. Appending is not offered, so nothing that is needs more.
    pub command: u32,
    /// Commands that cannot be read, before the connection is closed.
    pub errors: u32,
    /// Logins that fail, before the connection is closed.
    pub failed_logins: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { command: 64 * 1024, errors: 50, failed_logins: 3 }
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

/// Whether a password may be sent without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleartext {
    /// It may: the connection does not leave this machine.
    Allowed,
    /// It may not.
    Refused,
}

/// A mailbox of the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Its name, with `/` between levels.
    pub name: String,
    /// Its special use (RFC 6154), or empty.
    pub special_use: String,
    /// Whether it is subscribed to.
    pub subscribed: bool,
    /// UIDVALIDITY.
    pub uidvalidity: u32,
    /// UIDNEXT.
    pub uidnext: u32,
    /// Messages.
    pub messages: u64,
    /// Those that are not seen.
    pub unseen: u64,
}

/// A message of the selected mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRow {
    /// Its UID.
    pub uid: u32,
    /// Bits of [`flags`].
    pub flags: i64,
    /// Keywords, with spaces between.
    pub keywords: String,
    /// Bytes.
    pub size: u64,
    /// Milliseconds since 1970.
    pub received: i64,
}

/// A mailbox as it is at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// UIDVALIDITY.
    pub uidvalidity: u32,
    /// UIDNEXT.
    pub uidnext: u32,
    /// By UID.
    pub messages: Vec<MessageRow>,
}

/// How flags change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagMode {
    /// These and no others.
    Set,
    /// These too.
    Add,
    /// Not these.
    Remove,
}

/// What the session asks of the world.
#[derive(Debug, PartialEq, Eq)]
pub enum Question {
    /// Is this the user's password? Answer: done or refused.
    Login {
        /// The user.
        user: String,
        /// The password.
        password: Secret<String>,
    },
    /// Which mailboxes are there? Answer: mailboxes.
    Mailboxes,
    /// How is this mailbox now? It becomes the one that the questions below are about. Answer: view, or refused if there is
    /// none of that name.
    View(String),
    /// The text of a message. Answer: text, or refused if it is gone.
    Text(u32),
    /// Change flags. Answer: done.
    Flags {
        /// Of these messages.
        uids: Vec<u32>,
        /// In this way.
        how: FlagMode,
        /// Bits of [`flags`].
        flags: i64,
        /// Keywords.
        keywords: Vec<String>,
    },
    /// Remove these messages for good. Answer: done.
    Expunge(Vec<u32>),
}

/// What the world says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done,
    /// No.
    Refused,
    /// The mailboxes.
    Mailboxes(Vec<Mailbox>),
    /// The mailbox.
    View(View),
    /// The text.
    Text(Bytes),
    /// Not at the moment.
    Unavailable,
}

/// What a command still has to do.
#[derive(Debug)]
enum Job {
    Login,
    List {
        pattern: String,
        only_subscribed: bool,
    },
    Status {
        name: String,
        items: Vec<StatusDataItemName>,
    },
    Open {
        name: String,
        mode: Mode,
    },
    Fetch {
        left: VecDeque<u32>,
        items: Vec<Item<'static>>,
    },
    /// Flags are being changed; then the view is looked at again.
    Store {
        told: Vec<u32>,
        uid: UidForm,
        silent: bool,
    },
    Search {
        key: Box<SearchKey<'static>>,
        left: VecDeque<u32>,
        found: Vec<u32>,
        uid: UidForm,
    },
    Expunge {
        tell: bool,
    },
    Refresh {
        expunge: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UidForm {
    Uid,
    Number,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    ReadWrite,
    ReadOnly,
}

#[derive(Debug)]
struct Selected {
    name: String,
    mode: Mode,
    messages: Vec<MessageRow>,
}

#[derive(Debug)]
struct Running {
    tag: String,
    name: &'static str,
    job: Job,
    /// The view is being looked at again, after which the command is done.
    refreshing: bool,
}

/// One client's dialogue.
pub struct ImapSession {
    limits: Limits,
    tls: Tls,
    cleartext: Cleartext,
    fragments: Fragmentizer,
    output: VecDeque<Bytes>,
    question: Option<Question>,
    running: Option<Running>,
    /// The tag of an AUTHENTICATE whose response is awaited.
    sasl: Option<String>,
    logged_in: bool,
    selected: Option<Selected>,
    errors: u32,
    failed_logins: u32,
    start_tls: bool,
    closing: bool,
    ended: bool,
}

impl ImapSession {
    /// A session that greets its client.
    pub fn new(limits: Limits, tls: Tls, cleartext: Cleartext) -> Self {
        let mut session = Self {
            fragments: Fragmentizer::new(limits.command),
            limits,
            tls,
            cleartext,
            output: VecDeque::new(),
            question: None,
            running: None,
            sasl: None,
            logged_in: false,
            selected: None,
            errors: 0,
            failed_logins: 0,
            start_tls: false,
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

    fn capabilities(&self) -> String {
        let mut list = String::from("IMAP4rev1 LITERAL+ SASL-IR UNSELECT SPECIAL-USE");
        if !self.logged_in {
            if self.tls == Tls::Offered {
                list.push_str(" STARTTLS");
            }
            list.push_str(if self.may_login() { " AUTH=PLAIN" } else { " LOGINDISABLED" });
        }
        list
    }

    fn may_login(&self) -> bool {
        self.tls == Tls::On || self.cleartext == Cleartext::Allowed
    }

    /// Works off what has come. Says whether anything was done.
    fn work(&mut self) -> bool {
        let Some(fragment) = self.fragments.progress() else { return false };
        if let FragmentInfo::Line { announcement: Some(announcement), .. } = fragment {
            let tag = self.fragments.decode_tag().map_or("*".to_owned(), |tag| tag.inner().to_owned());
            let too_long = announcement.length > self.limits.command || self.fragments.is_max_message_size_exceeded();
            match announcement.mode {
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

    fn message(&mut self) {
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
        let command = match self.fragments.decode_message(&CommandCodec::default()) {
            Ok(command) => Ok(command.into_static()),
            Err(_) => Err(self.fragments.decode_tag().map_or("*".to_owned(), |tag| tag.inner().to_owned())),
        };
        match command {
            Ok(command) => self.obey(command),
            Err(tag) => self.mistake(&tag, "the command cannot be read"),
        }
    }

    fn obey(&mut self, command: Command<'static>) {
        let (tag, body) = (command.tag.inner().to_owned(), command.body);
        match body {
            CommandBody::Capability => {
                self.put(format!("* CAPABILITY {}\r\n", self.capabilities()));
                self.done(&tag, "OK CAPABILITY done");
            }
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
            body => self.after_login(tag, body),
        }
    }

    fn before_login(&mut self, tag: String, body: CommandBody<'static>) {
        match body {
            CommandBody::StartTLS if self.tls == Tls::Offered => {
                self.done(&tag, "OK begin TLS");
                self.start_tls = true;
            }
            CommandBody::StartTLS => self.mistake(&tag, "TLS is not available"),
            CommandBody::Login { .. } | CommandBody::Authenticate { .. } if !self.may_login() => {
                self.done(&tag, "NO [PRIVACYREQUIRED] no password in the clear: use STARTTLS, or the port for TLS");
            }
            CommandBody::Login { username, password } => {
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                let password = Secret::new(text(password.declassify().as_ref()));
                self.login(tag, text(username.as_ref()), password);
            }
            CommandBody::Authenticate { mechanism: AuthMechanism::Plain, initial_response } => match initial_response {
                Some(initial) => self.plain(tag, initial.declassify()),
                None => {
                    self.put("+ \r\n");
                    self.sasl = Some(tag);
                }
            },
            CommandBody::Authenticate { .. } => self.done(&tag, "NO only AUTHENTICATE PLAIN is known"),
            _ => self.mistake(&tag, "log in first"),
        }
    }

    /// A SASL PLAIN response (RFC 4616).
    fn plain(&mut self, tag: String, response: &[u8]) {
        let text = String::from_utf8_lossy(response).into_owned();
        match text.split('\0').collect::<Vec<_>>().as_slice() {
            [identity, user, password] if identity.is_empty() || identity == user => {
                self.login(tag, (*user).to_owned(), Secret::new((*password).to_owned()));
            }
            _ => self.mistake(&tag, "the response cannot be read"),
        }
    }

    fn login(&mut self, tag: String, user: String, password: Secret<String>) {
        self.ask(tag, "LOGIN", Question::Login { user, password }, Job::Login);
    }

    fn after_login(&mut self, tag: String, body: CommandBody<'static>) {
        match body {
            CommandBody::List { reference, mailbox_wildcard } => {
                self.list(tag, "LIST", &reference, &mailbox_wildcard, false)
            }
            CommandBody::Lsub { reference, mailbox_wildcard } => {
                self.list(tag, "LSUB", &reference, &mailbox_wildcard, true)
            }
            CommandBody::Status { mailbox, item_names } => {
                let items = item_names.to_vec();
                self.named(tag, "STATUS", &mailbox, Question::Mailboxes, |name| Job::Status { name, items });
            }
            CommandBody::Select { mailbox, .. } => self.open(tag, "SELECT", &mailbox, Mode::ReadWrite),
            CommandBody::Examine { mailbox, .. } => self.open(tag, "EXAMINE", &mailbox, Mode::ReadOnly),
            body if self.selected.is_some() => self.in_mailbox(tag, body),
            CommandBody::Fetch { .. }
            | CommandBody::Store { .. }
            | CommandBody::Search { .. }
            | CommandBody::Expunge
            | CommandBody::Close
            | CommandBody::Unselect => self.mistake(&tag, "select a mailbox first"),
            CommandBody::Login { .. } | CommandBody::Authenticate { .. } | CommandBody::StartTLS => {
                self.mistake(&tag, "you are logged in already");
            }
            _ => self.done(&tag, "NO [CANNOT] this command is not supported"),
        }
    }

    fn named(
        &mut self,
        tag: String,
        command: &'static str,
        mailbox: &MailboxName<'_>,
        question: Question,
        job: impl FnOnce(String) -> Job,
    ) {
        match mailbox_name(mailbox) {
            Some(name) => {
                let job = job(name);
                self.ask(tag, command, question, job);
            }
            None => self.mistake(&tag, "the mailbox's name is not modified UTF-7"),
        }
    }

    fn list(
        &mut self,
        tag: String,
        command: &'static str,
        reference: &MailboxName<'_>,
        wildcard: &ListMailbox<'_>,
        only_subscribed: bool,
    ) {
        let pattern = match wildcard {
            ListMailbox::Token(token) => token.as_ref().to_vec(),
            ListMailbox::String(string) => string.as_ref().to_vec(),
        };
        if pattern.is_empty() {
            self.put(format!("* {command} (\\Noselect) \"/\" \"\"\r\n"));
            return self.done(&tag, &format!("OK {command} done"));
        }
        let Some(pattern) = names::decode(&pattern) else {
            return self.mistake(&tag, "the pattern is not modified UTF-7");
        };
        let reference = mailbox_name(reference).unwrap_or_default();
        let job = Job::List { pattern: reference + &pattern, only_subscribed };
        self.ask(tag, command, Question::Mailboxes, job);
    }

    fn open(&mut self, tag: String, command: &'static str, mailbox: &MailboxName<'_>, mode: Mode) {
        self.selected = None;
        match mailbox_name(mailbox) {
            Some(name) => self.ask(tag, command, Question::View(name.clone()), Job::Open { name, mode }),
            None => self.mistake(&tag, "the mailbox's name is not modified UTF-7"),
        }
    }

    fn in_mailbox(&mut self, tag: String, body: CommandBody<'static>) {
        match body {
            CommandBody::Fetch { sequence_set, macro_or_item_names, uid, .. } => {
                let mut items = fetch::items(macro_or_item_names);
                if uid && !items.contains(&Item::Uid) {
                    items.insert(0, Item::Uid);
                }
                self.fetch(tag, &sequence_set, items, form(uid));
            }
            CommandBody::Store { sequence_set, kind, response, flags, uid, .. } => {
                self.store(tag, &sequence_set, kind, response, &flags, form(uid));
            }
            CommandBody::Search { criteria, uid, .. } => {
                let key = Box::new(SearchKey::And(criteria));
                let left = self.messages().iter().map(|row| row.uid).collect();
                self.running = Some(Running {
                    tag,
                    name: "SEARCH",
                    job: Job::Search { key, left, found: Vec::new(), uid: form(uid) },
                    refreshing: false,
                });
                self.go_on();
            }
            CommandBody::Expunge | CommandBody::Close => self.expunge(tag, matches!(body, CommandBody::Expunge)),
            CommandBody::Unselect => {
                self.selected = None;
                self.done(&tag, "OK UNSELECT done");
            }
            _ => self.done(&tag, "NO [CANNOT] this command is not supported"),
        }
    }

    fn messages(&self) -> &[MessageRow] {
        self.selected.as_ref().map_or(&[], |selected| &selected.messages)
    }

    fn is_read_only(&self) -> bool {
        self.selected.as_ref().is_none_or(|selected| selected.mode == Mode::ReadOnly)
    }

    /// The UIDs of a set, of sequence numbers or UIDs.
    fn chosen(&self, set: &SequenceSet, form: UidForm) -> Vec<u32> {
        let messages = self.messages();
        let last = match form {
            UidForm::Uid => messages.last().map_or(0, |row| row.uid),
            UidForm::Number => u32::try_from(messages.len()).unwrap_or(u32::MAX),
        };
        let is_chosen = |number: u32, row: &MessageRow| match form {
            UidForm::Uid => search::contains(set, row.uid, last),
            UidForm::Number => search::contains(set, number, last),
        };
        (1..).zip(messages).filter(|(number, row)| is_chosen(*number, row)).map(|(_, row)| row.uid).collect()
    }

    fn fetch(&mut self, tag: String, set: &SequenceSet, mut items: Vec<Item<'static>>, form: UidForm) {
        if !items.iter().all(fetch::is_known) {
            return self.done(&tag, "NO [CANNOT] an item of FETCH is not supported");
        }
        let uids = self.chosen(set, form);
        let left: VecDeque<u32> = uids.iter().copied().collect();
        let marks = items.iter().any(fetch::marks_seen) && !self.is_read_only();
        let unseen: Vec<u32> = self
            .messages()
            .iter()
            .filter(|row| row.flags & flags::SEEN == 0 && uids.contains(&row.uid))
            .map(|row| row.uid)
            .collect();
        let mark = marks && !unseen.is_empty();
        if mark && !items.contains(&Item::Flags) {
            items.push(Item::Flags);
        }
        self.running = Some(Running { tag, name: "FETCH", job: Job::Fetch { left, items }, refreshing: false });
        if mark {
            if let Some(selected) = &mut self.selected {
                selected
                    .messages
                    .iter_mut()
                    .filter(|row| unseen.contains(&row.uid))
                    .for_each(|row| row.flags |= flags::SEEN);
            }
            self.question =
                Some(Question::Flags { uids: unseen, how: FlagMode::Add, flags: flags::SEEN, keywords: Vec::new() });
        } else {
            self.go_on();
        }
    }

    fn store(
        &mut self,
        tag: String,
        set: &SequenceSet,
        kind: StoreType,
        response: StoreResponse,
        list: &[Flag<'_>],
        form: UidForm,
    ) {
        if self.is_read_only() {
            return self.done(&tag, "NO [READ-ONLY] the mailbox was opened with EXAMINE");
        }
        let (mut bits, mut keywords) = (0, Vec::new());
        for flag in list {
            match flag {
                Flag::Seen => bits |= flags::SEEN,
                Flag::Answered => bits |= flags::ANSWERED,
                Flag::Flagged => bits |= flags::FLAGGED,
                Flag::Deleted => bits |= flags::DELETED,
                Flag::Draft => bits |= flags::DRAFT,
                Flag::Keyword(word) => keywords.push(word.as_ref().to_owned()),
                Flag::Extension(_) => return self.mistake(&tag, "this system flag is not known"),
            }
        }
        let how = match kind {
            StoreType::Replace => FlagMode::Set,
            StoreType::Add => FlagMode::Add,
            StoreType::Remove => FlagMode::Remove,
        };
        let uids = self.chosen(set, form);
        let job = Job::Store { told: uids.clone(), uid: form, silent: response == StoreResponse::Silent };
        self.ask(tag, "STORE", Question::Flags { uids, how, flags: bits, keywords }, job);
    }

    fn expunge(&mut self, tag: String, tell: bool) {
        let deleted = self.messages().iter().filter(|row| row.flags & flags::DELETED != 0).map(|row| row.uid).collect();
        match (self.is_read_only(), tell) {
            (true, true) => self.done(&tag, "NO [READ-ONLY] the mailbox was opened with EXAMINE"),
            (true, false) => {
                self.selected = None;
                self.done(&tag, "OK CLOSE done");
            }
            (false, _) => {
                self.ask(tag, if tell { "EXPUNGE" } else { "CLOSE" }, Question::Expunge(deleted), Job::Expunge { tell })
            }
        }
    }

    fn ask(&mut self, tag: String, name: &'static str, question: Question, job: Job) {
        self.question = Some(question);
        self.running = Some(Running { tag, name, job, refreshing: false });
    }

    fn refresh(&mut self, tag: String, name: &'static str, job: Job) {
        let Some(mailbox) = self.selected.as_ref().map(|selected| selected.name.clone()) else { return };
        self.question = Some(Question::View(mailbox));
        self.running = Some(Running { tag, name, job, refreshing: true });
    }

    fn finish(&mut self, running: &Running) {
        self.done(&running.tag, &format!("OK {} done", running.name));
    }

    /// The next step of a command that goes message by message.
    fn go_on(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        let over = match &mut running.job {
            Job::Fetch { left, items } => self.fetch_next(left, items),
            Job::Search { key, left, found, .. } => self.search_next(key, left, found),
            _ => true,
        };
        if !over {
            self.running = Some(running);
            return;
        }
        if let Job::Search { found, uid, .. } = &running.job {
            let mut line = String::from("* SEARCH");
            for uid_found in found {
                let number = self.number(*uid_found).unwrap_or(0);
                line.push_str(&format!(" {}", if *uid == UidForm::Uid { *uid_found } else { number }));
            }
            self.put(line + "\r\n");
        }
        self.finish(&running);
    }

    fn number(&self, uid: u32) -> Option<u32> {
        let at = self.messages().binary_search_by_key(&uid, |row| row.uid).ok()?;
        u32::try_from(at + 1).ok()
    }

    /// Says whether all messages have been fetched; else a question has been put.
    fn fetch_next(&mut self, left: &mut VecDeque<u32>, items: &[Item<'static>]) -> bool {
        if !items.iter().any(fetch::needs_text) {
            for uid in left.drain(..) {
                self.put_fetched(uid, items, None);
            }
        }
        match left.front() {
            Some(uid) => {
                self.question = Some(Question::Text(*uid));
                false
            }
            None => true,
        }
    }

    fn put_fetched(&mut self, uid: u32, items: &[Item<'static>], text: Option<&[u8]>) {
        let Some(number) = self.number(uid) else { return };
        let row = &self.messages()[number as usize - 1];
        let response = fetch::response(number as usize, row, items, text).freeze();
        self.put(response);
    }

    fn search_next(&mut self, key: &SearchKey<'static>, left: &mut VecDeque<u32>, found: &mut Vec<u32>) -> bool {
        if !search::needs_text(key) {
            for uid in left.drain(..) {
                if self.meets(key, uid, None) {
                    found.push(uid);
                }
            }
        }
        match left.front() {
            Some(uid) => {
                self.question = Some(Question::Text(*uid));
                false
            }
            None => true,
        }
    }

    fn meets(&self, key: &SearchKey<'static>, uid: u32, text: Option<&[u8]>) -> bool {
        let messages = self.messages();
        let last = (u32::try_from(messages.len()).unwrap_or(u32::MAX), messages.last().map_or(0, |row| row.uid));
        let Some(number) = self.number(uid) else { return false };
        let candidate = search::Candidate { row: &messages[number as usize - 1], number, text, last };
        search::meets(key, &candidate).unwrap_or(false)
    }

    fn answered(&mut self, answer: Answer) {
        let Some(mut running) = self.running.take() else { return };
        if answer == Answer::Unavailable {
            return self.done(&running.tag, "NO [UNAVAILABLE] not at the moment; try again");
        }
        if running.refreshing {
            return self.refreshed(&running, answer);
        }
        match (&mut running.job, answer) {
            (Job::Login, Answer::Done) => {
                self.logged_in = true;
                let capabilities = self.capabilities();
                self.done(&running.tag, &format!("OK [CAPABILITY {capabilities}] logged in"));
            }
            (Job::Login, _) => {
                self.failed_logins += 1;
                self.done(&running.tag, "NO [AUTHENTICATIONFAILED] wrong user or password");
                if self.failed_logins >= self.limits.failed_logins {
                    self.put("* BYE too many failed logins\r\n");
                    self.closing = true;
                }
            }
            (Job::List { pattern, only_subscribed }, Answer::Mailboxes(mailboxes)) => {
                for mailbox in mailboxes.iter().filter(|mailbox| mailbox.subscribed || !*only_subscribed) {
                    if names::matches(pattern, &mailbox.name) {
                        self.put_listed(running.name, mailbox);
                    }
                }
                self.finish(&running);
            }
            (Job::Status { name, items }, Answer::Mailboxes(mailboxes)) => {
                match mailboxes.iter().find(|mailbox| mailbox.name == *name) {
                    Some(mailbox) => {
                        self.put_status(mailbox, items);
                        self.finish(&running);
                    }
                    None => self.done(&running.tag, "NO [NONEXISTENT] there is no such mailbox"),
                }
            }
            (Job::Open { name, mode }, Answer::View(view)) => {
                let (name, mode) = (name.clone(), *mode);
                self.opened(&running, name, mode, view);
            }
            (Job::Open { .. }, _) => self.done(&running.tag, "NO [NONEXISTENT] there is no such mailbox"),
            (Job::Fetch { left, items }, Answer::Text(text)) => {
                if let Some(uid) = left.pop_front() {
                    self.put_fetched(uid, items, Some(&text));
                }
                self.running = Some(running);
                self.go_on();
            }
            (Job::Search { key, left, found, .. }, Answer::Text(text)) => {
                if let Some(uid) = left.pop_front().filter(|uid| self.meets(key, *uid, Some(&text))) {
                    found.push(uid);
                }
                self.running = Some(running);
                self.go_on();
            }
            // The message went in the meantime: RFC 2180 section 4.1.3 lets it be left out.
            (Job::Fetch { left, .. } | Job::Search { left, .. }, Answer::Refused) => {
                left.pop_front();
                self.running = Some(running);
                self.go_on();
            }
            // The messages were marked as seen; now they are fetched.
            (Job::Fetch { .. }, Answer::Done) => {
                self.running = Some(running);
                self.go_on();
            }
            (Job::Store { .. } | Job::Expunge { tell: true }, Answer::Done) => {
                let Running { tag, name, job, .. } = running;
                self.refresh(tag, name, job);
            }
            (Job::Expunge { tell: false }, Answer::Done) => {
                self.selected = None;
                self.finish(&running);
            }
            (_, _) => self.done(&running.tag, "NO [SERVERBUG] an answer did not fit its question"),
        }
    }

    fn put_listed(&mut self, command: &str, mailbox: &Mailbox) {
        let special = if mailbox.special_use.is_empty() { String::new() } else { format!(" {}", mailbox.special_use) };
        let mut line = bytes::BytesMut::from(format!("* {command} (\\HasNoChildren{special}) \"/\" ").as_bytes());
        encode::string(&mut line, names::encode(&mailbox.name).as_bytes());
        line.extend_from_slice(b"\r\n");
        self.put(line.freeze());
    }

    fn put_status(&mut self, mailbox: &Mailbox, items: &[StatusDataItemName]) {
        let mut line = bytes::BytesMut::from(&b"* STATUS "[..]);
        encode::string(&mut line, names::encode(&mailbox.name).as_bytes());
        let items = items.iter().filter_map(|item| match item {
            StatusDataItemName::Messages => Some(format!("MESSAGES {}", mailbox.messages)),
            StatusDataItemName::Recent => Some("RECENT 0".to_owned()),
            StatusDataItemName::UidNext => Some(format!("UIDNEXT {}", mailbox.uidnext)),
            StatusDataItemName::UidValidity => Some(format!("UIDVALIDITY {}", mailbox.uidvalidity)),
            StatusDataItemName::Unseen => Some(format!("UNSEEN {}", mailbox.unseen)),
            _ => None,
        });
        line.extend_from_slice(format!(" ({})\r\n", items.collect::<Vec<_>>().join(" ")).as_bytes());
        self.put(line.freeze());
    }

    fn opened(&mut self, running: &Running, name: String, mode: Mode, view: View) {
        let count = view.messages.len();
        self.put(format!(
            "* {count} EXISTS\r\n* 0 RECENT\r\n* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n"
        ));
        let permanent =
            if mode == Mode::ReadOnly { "()" } else { "(\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)" };
        self.put(format!("* OK [PERMANENTFLAGS {permanent}] flags that are kept\r\n"));
        if let Some(first) = view.messages.iter().position(|row| row.flags & flags::SEEN == 0) {
            self.put(format!("* OK [UNSEEN {}] the first that is not seen\r\n", first + 1));
        }
        self.put(format!(
            "* OK [UIDVALIDITY {}] as long as UIDs hold\r\n* OK [UIDNEXT {}] the next UID\r\n",
            view.uidvalidity, view.uidnext
        ));
        let code = if mode == Mode::ReadOnly { "READ-ONLY" } else { "READ-WRITE" };
        self.done(&running.tag, &format!("OK [{code}] {} done", running.name));
        self.selected = Some(Selected { name, mode, messages: view.messages });
    }

    fn refreshed(&mut self, running: &Running, answer: Answer) {
        let (Answer::View(view), Some(selected)) = (answer, &mut self.selected) else {
            self.put("* BYE the mailbox is gone\r\n");
            self.closing = true;
            return;
        };
        let (told, uid, silent, expunge) = match &running.job {
            Job::Store { told, uid, silent } => (told.as_slice(), *uid, *silent, *uid == UidForm::Uid),
            Job::Refresh { expunge } => (&[][..], UidForm::Number, false, *expunge),
            _ => (&[][..], UidForm::Number, false, true),
        };
        let lines = changes(&mut selected.messages, view.messages, told, uid, silent, expunge);
        for line in lines {
            self.put(line);
        }
        self.finish(running);
    }
}

/// Brings a snapshot up to date and gives what the client is told of it. Messages that went stay in the snapshot while
/// sequence numbers must stand still (RFC 3501 section 7.4.1).
fn changes(
    old: &mut Vec<MessageRow>,
    new: Vec<MessageRow>,
    told: &[u32],
    uid: UidForm,
    silent: bool,
    expunge: bool,
) -> Vec<String> {
    let mut lines = Vec::new();
    let find = |uid: u32| new.binary_search_by_key(&uid, |row| row.uid).ok().map(|at| &new[at]);
    if expunge {
        let mut number = 1;
        old.retain(|row| {
            let stays = find(row.uid).is_some();
            if stays {
                number += 1;
            } else {
                lines.push(format!("* {number} EXPUNGE\r\n"));
            }
            stays
        });
    }
    for (number, row) in (1..).zip(old.iter_mut()) {
        let Some(now) = find(row.uid) else { continue };
        let changed = now.flags != row.flags || now.keywords != row.keywords;
        let is_told = told.contains(&row.uid);
        if (is_told && !silent) || (changed && !is_told) {
            let uid = if uid == UidForm::Uid { format!("UID {} ", now.uid) } else { String::new() };
            lines.push(format!("* {number} FETCH ({uid}FLAGS {})\r\n", encode::flags(now.flags, &now.keywords)));
        }
        row.clone_from(now);
    }
    let last = old.last().map_or(0, |row| row.uid);
    let before = old.len();
    old.extend(new.into_iter().filter(|row| row.uid > last));
    if old.len() > before {
        lines.push(format!("* {} EXISTS\r\n", old.len()));
    }
    lines
}

fn form(uid: bool) -> UidForm {
    if uid { UidForm::Uid } else { UidForm::Number }
}

fn mailbox_name(mailbox: &MailboxName<'_>) -> Option<String> {
    match mailbox {
        MailboxName::Inbox => Some("INBOX".to_owned()),
        MailboxName::Other(other) => names::decode(other.as_ref()),
    }
}

impl Session for ImapSession {
    type Question = Question;
    type Answer = Answer;

    fn input(&mut self, bytes: &[u8]) {
        self.fragments.enqueue_bytes(bytes);
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
            if !self.work() {
                if !self.ended {
                    return Step::NeedInput;
                }
                self.closing = true;
            }
        }
    }

    fn answer(&mut self, answer: Answer) {
        self.answered(answer);
    }

    fn tls_started(&mut self) {
        self.fragments = Fragmentizer::new(self.limits.command);
        self.tls = Tls::On;
    }

    fn end_of_input(&mut self) {
        self.ended = true;
    }

    fn farewell(&mut self, why: Farewell) {
        self.put(match why {
            Farewell::TimedOut => "* BYE nothing was heard for too long\r\n",
            Farewell::ShuttingDown => "* BYE restarting; try again in a moment\r\n",
        });
        self.closing = true;
    }
}

#[cfg(test)]
mod tests;
