//! Dialogues with a small world: one account, an INBOX with two messages.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proptest::prelude::*;

use imap_types::fetch::MessageDataItemName as Item;

use super::*;
use crate::imap::{FlagMode, Mailbox, MessageRow, Outline, Readable, View, flags};

mod condstore;
mod fetch;
mod large;
mod mailboxes;
mod recent;
mod rev2;
mod told;

const TEXTS: [&str; 2] = ["Subject: one\r\nFrom: a@b\r\n\r\nfirst\r\n", "Subject: two\r\n\r\nsecond\r\n"];

pub(super) struct World {
    pub(super) rows: Vec<MessageRow>,
    modseq: u64,
    /// UIDs of the expunged, and when that was.
    gone: Vec<(u32, u64)>,
    /// It has forgotten them.
    forgetful: bool,
    /// The text of all of them.
    own: Option<&'static str>,
    uidnext: u32,
    /// The first UID of those of which no session was told.
    recent: u32,
    /// Whether who looks takes them.
    takes: bool,
}

impl World {
    pub(super) fn new() -> Self {
        let row = |(index, text): (usize, &&str)| MessageRow {
            uid: u32::try_from(index).unwrap() * 10 + 5,
            flags: 0,
            keywords: Arc::default(),
            size: text.len() as u64,
            received: 0,
            modseq: 1,
        };
        Self {
            rows: TEXTS.iter().enumerate().map(row).collect(),
            modseq: 1,
            gone: Vec::new(),
            forgetful: false,
            own: None,
            uidnext: 16,
            recent: 16,
            takes: false,
        }
    }

    fn text(&self, uid: u32) -> &'static str {
        if let Some(text) = self.own {
            return text;
        }
        TEXTS[usize::try_from(uid / 10).unwrap()]
    }

    fn mailboxes(&self) -> Vec<Mailbox> {
        let mailbox = |(name, special_use): (&str, &str)| Mailbox {
            name: name.into(),
            exists: true,
            special_use: special_use.into(),
            subscribed: true,
            uidvalidity: 7,
            uidnext: self.uidnext,
            messages: 2,
            unseen: 2,
            deleted: 0,
            deleted_bytes: 0,
            bytes: 60,
            modseq: self.modseq,
            recent: self.rows.iter().filter(|row| row.uid >= self.recent).count() as u64,
        };
        [("INBOX", ""), ("Junk", "\\Junk")].map(mailbox).to_vec()
    }

    fn change(&mut self, uids: &[u32], change: (FlagMode, i64, &str), unchanged_since: Option<u64>) -> Answer {
        let (how, flags, keywords) = change;
        self.modseq += 1;
        let mut modified = Vec::new();
        for row in self.rows.iter_mut().filter(|row| uids.contains(&row.uid)) {
            if unchanged_since.is_some_and(|modseq| row.modseq > modseq) {
                modified.push(row.uid);
                continue;
            }
            row.flags = match how {
                FlagMode::Set => flags,
                FlagMode::Add => row.flags | flags,
                FlagMode::Remove => row.flags & !flags,
            };
            row.keywords = keywords.into();
            row.modseq = self.modseq;
        }
        if modified.is_empty() { Answer::Done } else { Answer::Modified(modified) }
    }

    fn open(&mut self, question: &Question) -> Answer {
        match question {
            Question::Select(name) | Question::View(name) if name == "INBOX" => {
                self.takes = matches!(question, Question::Select(_));
                Answer::View(self.view())
            }
            _ => Answer::Refused,
        }
    }

    fn view(&mut self) -> View {
        let (recent, uidnext) = (self.recent, self.uidnext);
        if self.takes {
            self.recent = uidnext;
        }
        let messages = self.rows.iter().cloned().collect();
        View { uidvalidity: 7, uidnext, modseq: self.modseq, messages, recent }
    }

    pub(super) fn answer(&mut self, question: Question) -> Answer {
        match question {
            Question::Login { user, password } if user == "alice" && password.reveal() == "secret" => Answer::Done,
            Question::Login { .. } => Answer::Refused,
            Question::Mailboxes => Answer::Mailboxes(self.mailboxes()),
            Question::Mailbox(name) => {
                Answer::Mailboxes(self.mailboxes().into_iter().filter(|mailbox| mailbox.name == name).collect())
            }
            Question::MailboxWithDeleted(name) => {
                let found = self.mailboxes().into_iter().filter(|mailbox| mailbox.name == name);
                Answer::Mailboxes(found.map(|one| Mailbox { deleted_bytes: 25, ..one }).collect())
            }
            Question::MailboxesWithDeleted => Answer::Mailboxes(
                self.mailboxes().into_iter().map(|one| Mailbox { deleted_bytes: 25, ..one }).collect(),
            ),
            Question::Select(_) | Question::View(_) => self.open(&question),
            Question::Changes => Answer::View(self.view()),
            Question::Flags { uids, how, flags, keywords, unchanged_since } => {
                self.change(&uids, (how, flags, &keywords.join(" ")), unchanged_since)
            }
            Question::Gone(since) => {
                let gone = self.gone.iter().filter(|(_, modseq)| *modseq > since).map(|(uid, _)| *uid);
                Answer::Gone((!self.forgetful).then(|| gone.collect()))
            }
            Question::Search { criteria, asked } => {
                let meets = |(number, row): &(u32, MessageRow)| {
                    let text = Readable::new(TEXTS[usize::try_from(row.uid / 10).unwrap()].as_bytes());
                    criteria.judge(*number, row, |wanted| text.tells(wanted)).unwrap()
                };
                Answer::Found(asked.into_iter().filter(meets).map(|(_, row)| row.uid).collect())
            }
            Question::Outlines(uids) => {
                let outline = |uid: &u32| (*uid, Outline::of(self.text(*uid).as_bytes()));
                Answer::Outlines(1, uids.iter().take(1).map(outline).collect())
            }
            Question::Texts { now, .. } => {
                let text = |(uid, _): &(u32, u64)| (*uid, self.text(*uid).into());
                Answer::Texts(now.0.len(), now.0.iter().map(text).collect())
            }
            Question::Expunge(uids) => {
                self.modseq += 1;
                let gone = self.rows.iter().filter(|row| uids.contains(&row.uid));
                self.gone.extend(gone.map(|row| (row.uid, self.modseq)));
                self.rows.retain(|row| !uids.contains(&row.uid));
                Answer::Done
            }
            other => mailboxes::answer(&other),
        }
    }
}

pub(super) fn run(session: &mut ImapSession, world: &mut World, said: &[u8], piece: usize) -> String {
    let (mut heard, mut rest) = (Vec::new(), said);
    loop {
        match session.next() {
            Step::Output(bytes) => heard.extend_from_slice(&bytes),
            Step::Ask(question) => session.answer(world.answer(question)),
            Step::StartTls => {
                heard.extend_from_slice(b"(tls)\r\n");
                session.tls_started();
            }
            Step::Compress => {
                heard.extend_from_slice(b"(compressed)\r\n");
                session.compressed();
            }
            Step::Close => {
                heard.extend_from_slice(b"(closed)");
                break;
            }
            Step::NeedInput if rest.is_empty() => break,
            Step::NeedInput => {
                let (now, later) = rest.split_at(piece.min(rest.len()));
                session.input(now);
                rest = later;
            }
        }
    }
    String::from_utf8_lossy(&heard).into_owned()
}

pub(super) fn session() -> ImapSession {
    ImapSession::new(Limits::default(), Tls::Offered, Cleartext::Allowed)
}

/// What is heard after logging in and selecting INBOX.
#[track_caller]
pub(super) fn check(said: &str, want: &str) {
    let (mut session, mut world) = (session(), World::new());
    let before = run(&mut session, &mut world, b"1 LOGIN alice secret\r\n2 SELECT INBOX\r\n", usize::MAX);
    assert!(before.ends_with("2 OK [READ-WRITE] SELECT done\r\n"), "{before}");
    assert_eq!(run(&mut session, &mut world, said.as_bytes(), usize::MAX), want);
}

#[test]
fn logging_in_and_looking_around() {
    let (mut session, mut world) = (session(), World::new());
    let mut hear = |said: &str| run(&mut session, &mut world, said.as_bytes(), usize::MAX);
    assert!(hear("").starts_with("* OK [CAPABILITY IMAP4rev1"));
    assert_eq!(hear("a SELECT INBOX\r\n"), "a BAD log in first\r\n");
    assert!(hear("b LOGIN alice wrong\r\n").starts_with("b NO [AUTHENTICATIONFAILED]"));
    assert!(hear("c LOGIN {5}\r\nalice {6+}\r\nsecret\r\n").starts_with("+ go on\r\nc OK [CAPABILITY"));
    assert_eq!(
        hear("d LIST \"\" *\r\n"),
        "* LIST (\\HasNoChildren) \"/\" \"INBOX\"\r\n* LIST (\\HasNoChildren \\Junk) \"/\" \"Junk\"\r\n\
         d OK LIST done\r\n"
    );
    assert_eq!(hear("e LIST \"\" \"\"\r\n"), "* LIST (\\Noselect) \"/\" \"\"\r\ne OK LIST done\r\n");
    assert_eq!(
        hear("f STATUS Junk (MESSAGES UNSEEN UIDNEXT)\r\n"),
        "* STATUS \"Junk\" (MESSAGES 2 UNSEEN 2 UIDNEXT 16)\r\nf OK STATUS done\r\n"
    );
    assert_eq!(hear("g SELECT Nowhere\r\n"), "g NO [NONEXISTENT] there is no such mailbox\r\n");
    assert!(hear("h SELECT inbox\r\n").contains("* 2 EXISTS\r\n* 0 RECENT\r\n"));
    assert!(hear("i LOGOUT\r\n").ends_with("i OK LOGOUT done\r\n(closed)"));
}

/// Thirty fields of thirty octets, with values of 1024: as much as RFC 2971 section 3.3 allows, and more than is kept.
#[test]
fn a_stranger_says_at_length_who_it_is() {
    let fields = format!("(\"{}\" \"{}\")", "n".repeat(30), "v".repeat(1024)).repeat(30).replace(")(", " ");
    let heard = |said: String, piece| {
        let heard = run(&mut session(), &mut World::new(), said.as_bytes(), piece);
        heard.split_once("ready\r\n").unwrap().1.to_owned()
    };
    let (told, noop) = ("* ID (\"name\" \"Chainmail\")\r\na OK ID done\r\n", "b OK NOOP done\r\n");
    for piece in [usize::MAX, 1000] {
        assert_eq!(heard(format!("a id {fields}\r\nb NOOP\r\n"), piece), format!("{told}{noop}"));
    }
    let refused = "a BAD the command cannot be read\r\n";
    for said in [format!("a IDLE {fields}\r\n"), format!("a ID {}\r\n", "x".repeat(9000))] {
        assert_eq!(heard(said, 1000), refused);
    }
}

#[test]
fn sasl_plain() {
    let plain = "AGFsaWNlAHNlY3JldA==";
    for said in [format!("a AUTHENTICATE PLAIN {plain}\r\n"), format!("a AUTHENTICATE PLAIN\r\n{plain}\r\n")] {
        assert!(run(&mut session(), &mut World::new(), said.as_bytes(), 3).ends_with("] logged in\r\n"), "{said}");
    }
}

#[test]
fn fetching() {
    check(
        "a FETCH 1:* (UID FLAGS)\r\n",
        "* 1 FETCH (UID 5 FLAGS ())\r\n* 2 FETCH (UID 15 FLAGS ())\r\na OK FETCH done\r\n",
    );
    check("a UID FETCH 15 RFC822.SIZE\r\n", "* 2 FETCH (UID 15 RFC822.SIZE 24)\r\na OK FETCH done\r\n");
    check("a FETCH 2 BODY.PEEK[TEXT]<0.3>\r\n", "* 2 FETCH (BODY[TEXT]<0> {3}\r\nsec)\r\na OK FETCH done\r\n");
    check(
        "a FETCH 2 BODY[HEADER.FIELDS (subject)]\r\n",
        "* 2 FETCH (BODY[HEADER.FIELDS (SUBJECT)] {16}\r\nSubject: two\r\n\r\n FLAGS (\\Seen))\r\na OK FETCH done\r\n",
    );
    check(
        "a UID FETCH 1:4294967295 FLAGS\r\n",
        "* 1 FETCH (UID 5 FLAGS ())\r\n* 2 FETCH (UID 15 FLAGS ())\r\na OK FETCH done\r\n",
    );
    check("a UID FETCH 6:9 FLAGS\r\n", "a OK FETCH done\r\n");
    let one =
        "(NIL \"one\" ((NIL NIL \"a\" \"b\")) ((NIL NIL \"a\" \"b\")) ((NIL NIL \"a\" \"b\")) NIL NIL NIL NIL NIL)";
    let two = "(NIL \"two\" NIL NIL NIL NIL NIL NIL NIL NIL)";
    check(
        "a FETCH 1:* ENVELOPE\r\n",
        &format!("* 1 FETCH (ENVELOPE {one})\r\n* 2 FETCH (ENVELOPE {two})\r\na OK FETCH done\r\n"),
    );
    let text = "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 8 1";
    check(
        "a FETCH 2 (BODY BODYSTRUCTURE)\r\n",
        &format!("* 2 FETCH (BODY {text}) BODYSTRUCTURE {text} NIL NIL NIL NIL))\r\na OK FETCH done\r\n"),
    );
    check(
        "a FETCH 2 (BODY.PEEK[HEADER.FIELDS (Subject)]<9.3> BODY.PEEK[]<15.4> BODY.PEEK[]<99.9>)\r\n",
        "* 2 FETCH (BODY[HEADER.FIELDS (SUBJECT)]<9> {3}\r\ntwo BODY[]<15> {4}\r\n\nsec BODY[]<99> {0}\r\n)\r\n\
         a OK FETCH done\r\n",
    );
}

/// A part in base64 with a NUL, one in quoted-printable, one in what nobody knows, a message.
const PARTS: &str = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\n\
                     YQBi\r\n--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=41b=\r\nc\r\n--b\r\n\
                     Content-Transfer-Encoding: x-odd\r\n\r\nodd\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n\
                     Content-Transfer-Encoding: base64\r\n\r\nYWI=\r\n--b--\r\n";

#[track_caller]
fn check_parts(items: &str, want: &str) {
    let (mut session, mut world) = (session(), World::new());
    run(&mut session, &mut world, b"1 LOGIN alice secret\r\n2 EXAMINE INBOX\r\n", usize::MAX);
    world.own = Some(PARTS);
    let heard = run(&mut session, &mut world, format!("a FETCH 1 ({items})\r\n").as_bytes(), usize::MAX);
    assert_eq!(heard, want);
}

#[test]
fn parts_are_decoded() {
    let fetched = |what: &str| format!("* 1 FETCH ({what})\r\na OK FETCH done\r\n");
    check_parts("BINARY[1]", &fetched("BINARY[1] ~{3}\r\na\0b"));
    check_parts("BINARY.PEEK[1]<2.9>", &fetched("BINARY[1]<2> {1}\r\nb"));
    check_parts("BINARY.SIZE[1] BINARY.SIZE[9]", &fetched("BINARY.SIZE[1] 3 BINARY.SIZE[9] 0"));
    check_parts("BINARY.PEEK[2]", &fetched("BINARY[2] {3}\r\nAbc"));
    check_parts("BINARY.PEEK[3]", "a NO [UNKNOWN-CTE] it is not known how the part is encoded\r\n");
    check_parts("BINARY.SIZE[3]", "a NO [UNKNOWN-CTE] it is not known how the part is encoded\r\n");
    check_parts("BINARY.PEEK[4]", &fetched("BINARY[4] {41}\r\nContent-Transfer-Encoding: base64\r\n\r\nYWI="));
    check_parts("BINARY.PEEK[4.1]", &fetched("BINARY[4.1] {2}\r\nab"));
    check_parts("BINARY.PEEK[5]", &fetched("BINARY[5] NIL"));
    check_parts("BINARY.SIZE[]", &fetched(&format!("BINARY.SIZE[] {}", PARTS.len())));
    check_parts(
        "BODY.PEEK[1]<9.1> BODY.PEEK[4.HEADER]<0.7>",
        &fetched("BODY[1]<9> {0}\r\n BODY[4.HEADER]<0> {7}\r\nContent"),
    );
}

#[test]
fn flags_and_expunging() {
    let said = "a STORE 1 +FLAGS (\\Deleted)\r\nb UID STORE 15 FLAGS.SILENT (Work)\r\nc EXPUNGE\r\nd FETCH 1 FLAGS\r\n";
    let want = "* 1 FETCH (FLAGS (\\Deleted))\r\na OK STORE done\r\nb OK STORE done\r\n* 1 EXPUNGE\r\n\
                c OK EXPUNGE done\r\n* 1 FETCH (FLAGS (Work))\r\nd OK FETCH done\r\n";
    check(said, want);
    check(
        "a EXAMINE INBOX\r\nb STORE 1 FLAGS ()\r\n",
        "* OK [CLOSED] what follows is of another mailbox\r\n* 2 EXISTS\r\n* 0 RECENT\r\n* FLAGS (\\Answered \\Flagged \
         \\Deleted \\Seen \\Draft)\r\n* OK [PERMANENTFLAGS ()] flags that are kept\r\n* OK [UNSEEN 1] the first that \
         is not seen\r\n* OK [UIDVALIDITY 7] as long as UIDs hold\r\n* OK [UIDNEXT 16] the next UID\r\n\
         * OK [HIGHESTMODSEQ 1] of all changes so far\r\na OK [READ-ONLY] EXAMINE done\r\nb NO [READ-ONLY] the mailbox \
         was opened with EXAMINE\r\n",
    );
}

#[test]
fn searching() {
    check("a SEARCH ALL\r\n", "* SEARCH 1 2\r\na OK SEARCH done\r\n");
    check("a UID SEARCH UNSEEN SUBJECT TWO\r\n", "* SEARCH 15\r\na OK SEARCH done\r\n");
    check("a SEARCH NOT UID 5\r\n", "* SEARCH 2\r\na OK SEARCH done\r\n");
    check("a SEARCH OR BODY first SEEN\r\n", "* SEARCH 1\r\na OK SEARCH done\r\n");
    check("a SEARCH BEFORE 1-Jan-1970\r\n", "* SEARCH\r\na OK SEARCH done\r\n");
    check("a SEARCH ON 1-Jan-1970\r\n", "* SEARCH 1 2\r\na OK SEARCH done\r\n");
}

#[test]
fn compression_begins_after_the_login_and_once() {
    let (mut session, mut world) = (session(), World::new());
    let mut hear = |said: &str| run(&mut session, &mut world, said.as_bytes(), usize::MAX);
    assert!(hear("a COMPRESS DEFLATE\r\n").ends_with("a BAD log in first\r\n"));
    assert!(hear("b LOGIN alice secret\r\n").contains(" COMPRESS=DEFLATE"));
    let said = "c COMPRESS DEFLATE\r\nd NOOP\r\n";
    assert_eq!(hear(said), "c OK what follows is compressed\r\n(compressed)\r\n", "what came too early is forgotten");
    assert!(hear("e COMPRESS DEFLATE\r\n").starts_with("e NO [COMPRESSIONACTIVE]"));
    assert!(!hear("f CAPABILITY\r\n").contains("COMPRESS"));
}

#[test]
fn what_is_not_offered_is_refused_without_losing_the_place() {
    check("a LIST {99999999}\r\nb NOOP\r\n", "a BAD [TOOBIG] the literal is too long\r\nb OK NOOP done\r\n");
    check(
        "a GETMETADATA INBOX /shared/comment\r\nb NONSENSE\r\nc NOOP\r\n",
        "a NO [CANNOT] this command is not supported\r\nb BAD the command cannot be read\r\nc OK NOOP done\r\n",
    );
}

#[test]
fn no_password_in_the_clear() {
    let mut session = ImapSession::new(Limits::default(), Tls::Offered, Cleartext::Refused);
    let mut world = World::new();
    let heard = run(&mut session, &mut world, b"a LOGIN alice secret\r\n", usize::MAX);
    assert!(heard.contains("STARTTLS LOGINDISABLED") && heard.contains("a NO [PRIVACYREQUIRED]"));
    let heard = run(&mut session, &mut world, b"b STARTTLS\r\nc LOGIN eve x\r\n", usize::MAX);
    assert_eq!(heard, "b OK begin TLS\r\n(tls)\r\n", "what came in the clear is forgotten");
    assert!(run(&mut session, &mut world, b"d LOGIN alice secret\r\n", 2).contains("d OK"));
}

proptest! {
    #[test]
    fn any_split_gives_the_same(said in "(a NOOP|b LOGIN alice secret|c SELECT INBOX|d FETCH 1 BODY\\[\\]|e LOGIN \
    \\{5\\+\\}|x|\r\n){0,12}", piece in 1usize..9) {
        let whole = run(&mut session(), &mut World::new(), said.as_bytes(), usize::MAX);
        prop_assert_eq!(run(&mut session(), &mut World::new(), said.as_bytes(), piece), whole);
    }

    #[test]
    fn no_bytes_make_it_panic(said: Vec<u8>) {
        run(&mut session(), &mut World::new(), &said, 7);
    }
}
