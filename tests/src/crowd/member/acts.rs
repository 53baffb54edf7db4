//! What a client does at random: each thing is written down as uncertain before it, and as certain once it was
//! answered.

use std::collections::BTreeMap;

use rand::Rng as _;
use rand::seq::IndexedRandom as _;

use super::super::ledger::Entry;
use super::super::view::{Numbers, set};
use super::{FLAGS, Member, Trouble};

/// Names that all create, delete and rename.
const PASSING: [&str; 3] = ["passing-a", "passing-b", "passing-c"];

impl Member<'_> {
    /// Does something.
    pub fn act(&mut self, mailboxes: &[&str]) -> Result<(), Trouble> {
        match self.random.random_range(0..100) {
            0..22 => self.append(mailboxes)?,
            22..47 => self.store()?,
            47..55 => self.copy(mailboxes)?,
            55..63 => self.take_away(mailboxes)?,
            63..75 => self.expunge()?,
            75..83 => self.noop()?,
            83..87 => self.idle()?,
            87..91 => self.search()?,
            91..94 => self.pass()?,
            _ => {
                let mailbox = (*mailboxes.choose(&mut self.random).unwrap()).to_owned();
                self.select(&mailbox)?;
            }
        }
        self.look()
    }

    fn append(&mut self, mailboxes: &[&str]) -> Result<(), Trouble> {
        let mailbox = *mailboxes.choose(&mut self.random).unwrap();
        self.mails += 1;
        let marker = format!("m{}-{}", self.number, self.mails);
        let flags: Vec<&str> = FLAGS.into_iter().filter(|_| self.random.random_bool(0.3)).collect();
        let text = format!("Subject: {marker}\r\n\r\n{}\r\n", "x".repeat(self.random.random_range(0..300)));
        self.ledger().maybe.insert(marker.clone());
        let done = self
            .command(&format!("APPEND {mailbox} ({}) {{{}}}\r\n{text}", flags.join(" "), text.len()), Numbers::Move)?;
        let code = done.code("appenduid").ok_or_else(|| "APPEND without APPENDUID".to_owned())?;
        let set = FLAGS.into_iter().map(|flag| (flag.to_owned(), flags.contains(&flag))).collect();
        let entry = Entry { marker, flags: set, owner: self.number, may_go: false };
        Ok(self.ledger().register(mailbox, code[1].parse().unwrap_or(0), entry)?)
    }

    /// A message of the mailbox: its number, its UID, its subject.
    fn pick(&mut self, is_own: bool) -> Option<(usize, u32, String)> {
        let rows = self.view.rows.iter().enumerate();
        let mut ledger = self.ledger();
        let book = ledger.book(&self.mailbox);
        let fits = |uid: &u32| {
            book.entries.get(uid).is_some_and(|entry| !entry.may_go && (!is_own || entry.owner == self.number))
        };
        let known = rows.filter_map(|(at, row)| Some((at + 1, row.uid?, row.marker.clone()?)));
        let known: Vec<_> = known.filter(|(_, uid, _)| fits(uid)).collect();
        drop(ledger);
        known.choose(&mut self.random).cloned()
    }

    /// Writes flags: all of a message of its own, on messages of others only its own keyword.
    fn store(&mut self) -> Result<(), Trouble> {
        let Some((at, uid, _)) = self.pick(false) else { return Ok(()) };
        let owner = self.ledger().book(&self.mailbox).entries[&uid].owner;
        // On messages with an even UID nobody else writes, so that all flags may be replaced.
        let is_own = owner == self.number && uid % 2 == 0;
        if owner != self.number && uid % 2 == 0 {
            return Ok(());
        }
        let mut named: Vec<String> =
            FLAGS.into_iter().filter(|_| is_own && self.random.random_bool(0.4)).map(str::to_owned).collect();
        named.push(self.keyword());
        let how = if is_own { self.random.random_range(0..3) } else { self.random.random_range(0..2) };
        let sign = ["+", "-", ""][how];
        let silent = if self.random.random_bool(0.3) { ".SILENT" } else { "" };
        let written: BTreeMap<String, bool> = match how {
            2 => FLAGS
                .into_iter()
                .map(|flag| (flag.to_owned(), named.iter().any(|name| name == flag)))
                .chain([(self.keyword(), true)])
                .collect(),
            _ => named.iter().map(|name| (name.clone(), how == 0)).collect(),
        };
        self.writes(uid, &written.keys().collect::<Vec<_>>());
        let by_uid = self.random.random_bool(0.5);
        let which = if by_uid { format!("UID STORE {uid}") } else { format!("STORE {at}") };
        let numbers = if by_uid { Numbers::Move } else { Numbers::Stand };
        let done = self.command(&format!("{which} {sign}FLAGS{silent} ({})", named.join(" ")), numbers)?;
        if !done.ok {
            return Ok(());
        }
        self.wrote(uid, &written);
        if !silent.is_empty()
            && let Some(row) = self.view.rows.iter_mut().find(|row| row.uid == Some(uid))
        {
            for (flag, is_set) in written {
                if is_set {
                    row.flags.insert(flag)
                } else {
                    row.flags.remove(&flag)
                };
            }
        }
        Ok(())
    }

    /// Flags are about to be written: until that is done nobody knows them.
    fn writes(&self, uid: u32, flags: &[&String]) {
        let mut ledger = self.ledger();
        if let Some(entry) = ledger.book(&self.mailbox).entries.get_mut(&uid) {
            entry.flags.retain(|flag, _| !flags.contains(&flag));
        }
    }

    fn wrote(&self, uid: u32, flags: &BTreeMap<String, bool>) {
        let mut ledger = self.ledger();
        if let Some(entry) = ledger.book(&self.mailbox).entries.get_mut(&uid) {
            entry.flags.extend(flags.iter().map(|(flag, is_set)| (flag.clone(), *is_set)));
        }
    }

    fn copy(&mut self, mailboxes: &[&str]) -> Result<(), Trouble> {
        let Some((at, uid, marker)) = self.pick(false) else { return Ok(()) };
        let mailbox = *mailboxes.choose(&mut self.random).unwrap();
        let by_uid = self.random.random_bool(0.5);
        let which = if by_uid { format!("UID COPY {uid}") } else { format!("COPY {at}") };
        // The copy has the same subject: until it is registered, that is one that may be there.
        self.ledger().maybe.insert(marker.clone());
        let done = self.command(&format!("{which} {mailbox}"), Numbers::Move)?;
        if let Some(code) = done.code("copyuid").filter(|_| done.ok) {
            if set(&code[1]) != [uid] {
                return Err(Trouble::Wrong(format!("{uid} was copied, and COPYUID says {}", code[1])));
            }
            let from = self.mailbox.clone();
            // Its owner may have asked for the end of the message meanwhile, and the copy has that mark too.
            let mut ledger = self.ledger();
            let may_go = ledger.book(&from).entries.get(&uid).is_none_or(|entry| entry.may_go);
            let entry = Entry { marker: marker.clone(), flags: BTreeMap::new(), owner: self.number, may_go };
            ledger.register(mailbox, code[2].parse().unwrap_or(0), entry)?;
            // Others may be copying the same.
            ledger.maybe.insert(marker);
        }
        Ok(())
    }

    /// Moves a message of its own.
    fn take_away(&mut self, mailboxes: &[&str]) -> Result<(), Trouble> {
        if !self.capabilities.contains("MOVE") {
            return Ok(());
        }
        let Some((_, uid, marker)) = self.pick(true) else { return Ok(()) };
        let mailbox = *mailboxes.choose(&mut self.random).unwrap();
        let from = self.mailbox.clone();
        {
            let mut ledger = self.ledger();
            ledger.maybe.insert(marker.clone());
            ledger.moving.insert(marker.clone());
            ledger.book(&from).entries.get_mut(&uid).unwrap().may_go = true;
        }
        let done = self.command(&format!("UID MOVE {uid} {mailbox}"), Numbers::Move)?;
        let mut ledger = self.ledger();
        let Some(code) = done.code("copyuid").filter(|_| done.ok) else {
            return Err(Trouble::Wrong(format!("{uid} was there, and was not moved")));
        };
        ledger.moving.remove(&marker);
        let entry = Entry { marker: marker.clone(), flags: BTreeMap::new(), owner: self.number, may_go: false };
        ledger.register(mailbox, code[2].parse().unwrap_or(0), entry)?;
        ledger.maybe.insert(marker);
        Ok(())
    }

    /// Marks a message of its own as deleted, and has all that are so marked expunged.
    fn expunge(&mut self) -> Result<(), Trouble> {
        let Some((_, uid, _)) = self.pick(true) else { return Ok(()) };
        let mailbox = self.mailbox.clone();
        self.ledger().book(&mailbox).entries.get_mut(&uid).unwrap().may_go = true;
        if !self.command(&format!("UID STORE {uid} +FLAGS (\\Deleted)"), Numbers::Move)?.ok {
            return Ok(());
        }
        let all = self.random.random_bool(0.5) || !self.capabilities.contains("UIDPLUS");
        let text = if all { "EXPUNGE".to_owned() } else { format!("UID EXPUNGE {uid}") };
        if self.command(&text, Numbers::Move)?.ok && self.view.uids().contains(&uid) {
            return Err(Trouble::Wrong(format!("{uid} was expunged, and nobody said so")));
        }
        Ok(())
    }

    fn idle(&mut self) -> Result<(), Trouble> {
        if !self.capabilities.contains("IDLE") {
            return Ok(());
        }
        self.transcript.push(format!("{} C: IDLE", self.number));
        let tag = self.session.idle()?;
        self.finish("IDLE", &tag, Numbers::Move)?;
        Ok(())
    }

    /// What is found is known, and rises.
    fn search(&mut self) -> Result<(), Trouble> {
        let done = self.command("UID SEARCH ALL", Numbers::Move)?;
        let known = self.view.uids();
        let found = done.untagged.iter().find(|reply| reply[0].is("search")).cloned().unwrap_or_default();
        let found: Vec<u32> = found.iter().skip(1).filter_map(|item| item.to_string().parse().ok()).collect();
        let all_named = self.view.rows.iter().all(|row| row.uid.is_some());
        match found.iter().find(|uid| !known.contains(uid)) {
            // It may have been expunged within this very command.
            Some(uid)
                if all_named
                    && !self.ledger().book(&self.mailbox).entries.get(uid).is_none_or(|entry| entry.may_go) =>
            {
                Err(Trouble::Wrong(format!("SEARCH finds {uid}, of which nobody told")))
            }
            _ => Ok(()),
        }
    }

    /// Mailboxes come, change their names and go, under everybody's hands: OK or NO, but a name never gets a
    /// UIDVALIDITY back with which other messages were seen.
    fn pass(&mut self) -> Result<(), Trouble> {
        let name = *PASSING.choose(&mut self.random).unwrap();
        match self.random.random_range(0..4) {
            0 => drop(self.command(&format!("CREATE {name}"), Numbers::Move)?),
            1 => drop(self.command(&format!("DELETE {name}"), Numbers::Move)?),
            2 => {
                let other = *PASSING.choose(&mut self.random).unwrap();
                self.command(&format!("RENAME {name} {other}"), Numbers::Move)?;
            }
            _ => {
                let marker = format!("p{}-{}", self.number, self.random.random::<u32>());
                let text = format!("Subject: {marker}\r\n\r\n");
                let done = self.command(&format!("APPEND {name} {{{}}}\r\n{text}", text.len()), Numbers::Move)?;
                if let Some(code) = done.code("appenduid") {
                    // Each UID of each era of a name is told once.
                    let era = format!("{name} {}", code[0]);
                    let uid = code[1].parse().unwrap_or(0);
                    if !self.ledger().eras.entry(era.clone()).or_default().insert(uid) {
                        return Err(Trouble::Wrong(format!("{uid} of {era} was given twice")));
                    }
                }
            }
        }
        Ok(())
    }
}
