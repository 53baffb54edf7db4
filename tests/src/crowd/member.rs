//! A client in the crowd: what it does at random, and what it then expects.

mod acts;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, MutexGuard};

use rand::rngs::StdRng;

use super::ledger::Ledger;
use super::view::{Numbers, View, set};
use crate::imaptest::Session;
use crate::imaptest::item::{self, Item};

/// Why a client cannot go on.
pub enum Trouble {
    /// The connection broke. In some tests that is the server's death, and nothing is wrong.
    Broken(io::Error),
    /// The server has told something that is not so.
    Wrong(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Broken(error) => write!(f, "the connection broke: {error}"),
            Self::Wrong(why) => f.write_str(why),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}

/// How a command ended: OK or NO, and the codes of all status replies.
struct Done {
    ok: bool,
    codes: Vec<Vec<Item>>,
    untagged: Vec<Vec<Item>>,
}

impl Done {
    /// The arguments of a code.
    fn code(&self, name: &str) -> Option<Vec<String>> {
        let code = self.codes.iter().find(|code| code.first().is_some_and(|word| word.is(name)))?;
        Some(code[1..].iter().map(ToString::to_string).collect())
    }
}

/// What a client remembers of a mailbox that it has left.
type Memory = (u32, u64, BTreeMap<u32, BTreeSet<String>>);

/// A client.
pub struct Member<'a> {
    number: usize,
    session: Session,
    ledger: &'a Mutex<Ledger>,
    random: StdRng,
    pub mailbox: String,
    pub view: View,
    mails: usize,
    capabilities: BTreeSet<String>,
    resyncs: bool,
    /// A mailbox as it was at some time, for a later QRESYNC.
    memory: BTreeMap<String, Memory>,
    transcript: Vec<String>,
}

const FLAGS: [&str; 4] = ["\\seen", "\\flagged", "\\answered", "\\draft"];

impl<'a> Member<'a> {
    /// Connects and logs in. Numbers tell clients apart, also one that comes again.
    pub fn enter(
        port: u16,
        login: &str,
        number: usize,
        ledger: &'a Mutex<Ledger>,
        random: StdRng,
    ) -> Result<Self, Trouble> {
        let session = Session::connect(port)?;
        let mut member = Self {
            number,
            session,
            ledger,
            random,
            mailbox: String::new(),
            view: View::default(),
            mails: 0,
            capabilities: BTreeSet::new(),
            resyncs: false,
            memory: BTreeMap::new(),
            transcript: Vec::new(),
        };
        if !member.command(login, Numbers::Move)?.ok {
            return Err(Trouble::Broken(io::Error::other("the login was refused")));
        }
        let done = member.command("CAPABILITY", Numbers::Move)?;
        member.capabilities = done.untagged.iter().flatten().map(|item| item.to_string().to_uppercase()).collect();
        // One half of the clients knows QRESYNC.
        if member.capabilities.contains("QRESYNC") && number % 2 == 1 {
            member.resyncs = member.command("ENABLE QRESYNC", Numbers::Move)?.ok;
        }
        Ok(member)
    }

    /// Goes on as somebody who was here before.
    pub fn remembers(&mut self, other: &mut Self) {
        self.mails = other.mails;
        self.memory = std::mem::take(&mut other.memory);
    }

    pub fn transcript(&self) -> String {
        let from = self.transcript.len().saturating_sub(60);
        self.transcript[from..].join("\n")
    }

    pub fn random(&mut self) -> &mut StdRng {
        &mut self.random
    }

    fn ledger(&self) -> MutexGuard<'a, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// The keyword that this client alone writes.
    fn keyword(&self) -> String {
        format!("$s{}", self.number)
    }

    fn command(&mut self, text: &str, numbers: Numbers) -> Result<Done, Trouble> {
        self.transcript.push(format!("{} C: {}", self.number, text.replace("\r\n", "|")));
        let tag = self.session.send(text.as_bytes())?;
        self.finish(text, &tag, numbers)
    }

    fn finish(&mut self, text: &str, tag: &str, numbers: Numbers) -> Result<Done, Trouble> {
        let mut done = Done { ok: false, codes: Vec::new(), untagged: Vec::new() };
        loop {
            let reply = self.session.reply()?;
            self.transcript.push(format!(
                "{} S: {}",
                self.number,
                String::from_utf8_lossy(&reply).replace("\r\n", "|")
            ));
            let items = match reply.strip_prefix(b"* ") {
                Some(untagged) => item::parse(untagged),
                None => {
                    let end = reply.strip_prefix(tag.as_bytes()).ok_or_else(|| "a tag that nobody used".to_owned())?;
                    item::parse(end)
                }
            };
            if let [word, Item::List(code)] = items.as_slice()
                && word.octets().is_some_and(item::is_status)
            {
                done.codes.push(code.clone());
            }
            if reply.starts_with(b"* ") {
                self.heard(&items, numbers)?;
                done.untagged.push(items);
                continue;
            }
            if items[0].is("bad") {
                return Err(Trouble::Wrong(format!("BAD to {text}")));
            }
            done.ok = items[0].is("ok");
            if done.ok
                && let Some(Item::List(code)) = items.get(1)
            {
                self.view.hear(&[Item::Text(b"OK".to_vec()), Item::List(code.clone())], numbers)?;
            }
            return Ok(done);
        }
    }

    fn heard(&mut self, items: &[Item], numbers: Numbers) -> Result<(), Trouble> {
        if items[0].is("bye") {
            return Err(Trouble::Broken(io::Error::other("BYE")));
        }
        let news = self.view.hear(items, numbers)?;
        let mut ledger = self.ledger();
        for uid in news.gone {
            ledger.gone(&self.mailbox, uid)?;
        }
        if let Some((uid, marker)) = news.named {
            ledger.named(&self.mailbox, uid, &marker)?;
        }
        // What this client has written itself, and was told to be done, it must find.
        let at = items.get(1).filter(|word| word.is("fetch")).and_then(|_| items[0].to_string().parse::<usize>().ok());
        let Some(row) = at.and_then(|at| self.view.rows.get(at - 1)) else { return Ok(()) };
        let Some((uid, entry)) = row.uid.and_then(|uid| Some((uid, ledger.book(&self.mailbox).entries.get(&uid)?)))
        else {
            return Ok(());
        };
        let own = |flag: &str| entry.owner == self.number && FLAGS.contains(&flag) || flag == self.keyword();
        match entry.flags.iter().find(|(flag, is_set)| own(flag) && row.flags.contains(*flag) != **is_set) {
            Some((flag, is_set)) => {
                Err(format!("{flag} of {uid} was written and should be {is_set}: {:?}", row.flags).into())
            }
            None => Ok(()),
        }
    }

    /// Asks about the messages of which it knows nothing but that they are there.
    pub fn look(&mut self) -> Result<(), Trouble> {
        if let Some(first) = self.view.rows.iter().position(|row| row.uid.is_none() || row.marker.is_none()) {
            let text = format!("FETCH {}:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])", first + 1);
            self.command(&text, Numbers::Stand)?;
        }
        Ok(())
    }

    /// Selects a mailbox, and compares it with what was promised to anybody before.
    pub fn select(&mut self, mailbox: &str) -> Result<(), Trouble> {
        let (promise, modseq) = {
            let mut ledger = self.ledger();
            (ledger.promise(mailbox), ledger.highest_modseq(mailbox))
        };
        self.remember();
        self.view = View::default();
        mailbox.clone_into(&mut self.mailbox);
        if !self.command(&format!("SELECT {mailbox}"), Numbers::Move)?.ok {
            return Err(Trouble::Wrong(format!("{mailbox} cannot be selected")));
        }
        let selected = self.view.clone();
        self.look()?;
        let mut ledger = self.ledger();
        if selected.modseq > 0 {
            ledger.modseq(mailbox, modseq, selected.modseq)?;
        }
        // A message may have been put there since, but none of those that were announced first is unknown.
        let mut told = self.view.clone();
        told.uidnext = selected.uidnext;
        Ok(ledger.selected(mailbox, &told, &promise)?)
    }

    fn remember(&mut self) {
        let is_whole = self.view.modseq > 0 && self.view.rows.iter().all(|row| row.uid.is_some());
        if self.resyncs && is_whole && !self.memory.contains_key(&self.mailbox) {
            let rows = self.view.rows.iter().filter_map(|row| Some((row.uid?, row.flags.clone()))).collect();
            self.memory.insert(self.mailbox.clone(), (self.view.uidvalidity, self.view.modseq, rows));
        }
    }

    /// Brings what it remembers of a mailbox up to date with QRESYNC, and gives the UIDs and flags that it then has.
    pub fn resync(&mut self, mailbox: &str) -> Result<Option<BTreeMap<u32, BTreeSet<String>>>, Trouble> {
        let Some((uidvalidity, modseq, mut rows)) = self.memory.remove(mailbox) else { return Ok(None) };
        self.view = View::default();
        mailbox.clone_into(&mut self.mailbox);
        let done = self.command(&format!("SELECT {mailbox} (QRESYNC ({uidvalidity} {modseq}))"), Numbers::Move)?;
        for reply in &done.untagged {
            match reply.as_slice() {
                [word, Item::List(_), uids] if word.is("vanished") => {
                    set(&uids.to_string()).iter().for_each(|uid| drop(rows.remove(uid)));
                }
                _ => {}
            }
        }
        for row in self.view.rows.iter().filter(|row| row.uid.is_some()) {
            rows.insert(row.uid.unwrap(), row.flags.clone());
        }
        Ok(Some(rows))
    }

    pub fn noop(&mut self) -> Result<(), Trouble> {
        self.command("NOOP", Numbers::Move)?;
        self.look()
    }
}
