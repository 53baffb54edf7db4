//! LIST and LSUB: which mailboxes there are, what is above them, and what is subscribed to.

use std::fmt::Write as _;

use bytes::BytesMut;
use imap_types::core::Tag;
use imap_types::mailbox::{ListMailbox, Mailbox as MailboxName};
use imap_types::status::StatusDataItemName;

use super::ImapSession;
use super::job::{Job, Running};
use super::levels::{self, Name};
use super::mailboxes::of_mailboxes;
use super::naming::wire;
use crate::imap::extended::list::{self as extended, Listed};
use crate::imap::names::{self, LONGEST, Pattern};
use crate::imap::question::Mailbox;

/// Patterns of a command: each name is compared with each of them.
const PATTERNS: usize = 10;
/// Letters of all of them: the longest name with a wildcard before each letter, or ten that people would write.
const LETTERS: usize = 2 * LONGEST + 1;
/// Names whose lines are written before the first of them is sent.
const PORTION: usize = 500;

/// What is listed.
#[derive(Debug)]
pub(super) struct Listing {
    patterns: Vec<Pattern>,
    what: Listed,
    command: Command,
    names: Names,
}

/// What there is to be listed.
#[derive(Debug)]
enum Names {
    Asked,
    /// It has come.
    There(Vec<Mailbox>),
    /// What is left of it.
    Found(Vec<Mailbox>, std::vec::IntoIter<Name>),
}

impl Listing {
    /// The mailboxes of the account.
    pub(super) fn take(&mut self, mailboxes: Vec<Mailbox>) {
        self.names = Names::There(mailboxes);
    }

    /// How much the next step has to do.
    pub(super) fn steps(&self) -> usize {
        match &self.names {
            Names::There(mailboxes) => levels::steps(mailboxes, &self.patterns),
            Names::Asked | Names::Found(..) => 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    List,
    Lsub,
}

impl ImapSession {
    /// LIST in all its forms, and CREATE with a special use. Says whether the command was one of them.
    pub(super) fn read_listing(&mut self) -> bool {
        if !self.logged_in || !self.is_whole() {
            return false;
        }
        let message = self.fragments.message_bytes();
        if let Some((tag, what)) = extended::list(message).filter(|(tag, _)| Tag::try_from(tag.as_str()).is_ok()) {
            self.list(tag, Command::List, what);
            return true;
        }
        if let Some((tag, name, special_use)) = extended::create(message) {
            if special_use == "\\" {
                self.done(&tag, "NO [USEATTR] a mailbox cannot have this use");
            } else {
                self.create(tag, &name, special_use);
            }
            return true;
        }
        false
    }

    pub(super) fn lsub(&mut self, tag: String, reference: &MailboxName<'_>, pattern: &ListMailbox<'_>) {
        let pattern = match pattern {
            ListMailbox::Token(token) => token.as_ref().to_vec(),
            ListMailbox::String(string) => string.as_ref().to_vec(),
        };
        let reference = wire(reference).to_vec();
        let what = Listed { reference, patterns: vec![pattern], subscribed: true, ..Listed::default() };
        self.list(tag, Command::Lsub, what);
    }

    fn list(&mut self, tag: String, command: Command, what: Listed) {
        let named = if command == Command::List { "LIST" } else { "LSUB" };
        if !what.is_extended && what.patterns.iter().all(Vec::is_empty) {
            self.put(format!("* {named} (\\Noselect) \"/\" \"\"\r\n"));
            return self.done(&tag, &format!("OK {named} done"));
        }
        if what.patterns.len() > PATTERNS {
            return self.done(&tag, "NO [LIMIT] these are too many patterns");
        }
        let spelling = self.spelling();
        // No mailbox has a name that is not spelt as it should be.
        let whole = |pattern: &Vec<u8>| names::decode(&[&what.reference[..], pattern].concat(), spelling);
        let patterns = what.patterns.iter().filter_map(whole).filter_map(|pattern| Pattern::new(&pattern));
        let patterns: Vec<Pattern> = patterns.collect();
        if patterns.iter().map(Pattern::letters).sum::<usize>() > LETTERS {
            return self.done(&tag, "NO [LIMIT] the patterns are too long");
        }
        self.asked_modseq(what.status.contains(&StatusDataItemName::HighestModSeq));
        let question = of_mailboxes(&what.status);
        let job = Job::List(Box::new(Listing { patterns, what, command, names: Names::Asked }));
        self.ask(tag, named, question, job);
    }

    /// Finds the names, or writes the next of them.
    pub(super) fn list_on(&mut self, mut running: Running) {
        let Job::List(listing) = &mut running.job else { return };
        match &mut listing.names {
            Names::There(mailboxes) => {
                let names = levels::listed(mailboxes, &listing.patterns).into_iter();
                listing.names = Names::Found(std::mem::take(mailboxes), names);
            }
            Names::Found(mailboxes, names) if names.len() > 0 => {
                for name in names.take(PORTION) {
                    match listing.command {
                        Command::List => self.put_name(&listing.what, &name, mailboxes),
                        Command::Lsub => self.put_lsub(&name, mailboxes),
                    }
                }
            }
            Names::Asked | Names::Found(..) => return self.finish(&running),
        }
        self.running = Some(running);
    }

    fn put_name(&mut self, what: &Listed, name: &Name, mailboxes: &[Mailbox]) {
        let (known, named) = (&name.known, name.mailbox(mailboxes));
        let mailbox = named.filter(|mailbox| mailbox.exists);
        let is_subscribed = named.is_some_and(|mailbox| mailbox.subscribed);
        let has_use = mailbox.is_some_and(|mailbox| !mailbox.special_use.is_empty());
        let is_parent = what.recursive && known.has_subscribed;
        // Names without a mailbox are those above one, and those that are subscribed to.
        let is_there = mailbox.is_some() || known.has_children || what.subscribed;
        if !is_there
            || (what.subscribed && !is_subscribed && !(what.recursive && known.has_hidden))
            || (what.special_use && !has_use)
        {
            return;
        }
        let mut attributes = Vec::new();
        if mailbox.is_none() {
            attributes.push("\\NonExistent");
            // That implies the other (RFC 5258 section 3), for those who know it.
            if !what.is_extended && !self.tells.rev2 {
                attributes.push("\\Noselect");
            }
        }
        attributes.push(if known.has_children { "\\HasChildren" } else { "\\HasNoChildren" });
        if is_subscribed && what.tell_subscribed {
            attributes.push("\\Subscribed");
        }
        attributes.extend(mailbox.map(|mailbox| mailbox.special_use.as_str()).filter(|special| !special.is_empty()));
        // RFC 5258 section 3.5.
        let child = if is_parent { " (\"CHILDINFO\" (\"SUBSCRIBED\"))" } else { "" };
        self.put_line("LIST", &attributes.join(" "), name.name(mailboxes), child);
        if let Some(mailbox) = mailbox.filter(|_| !what.status.is_empty()) {
            self.put_status(mailbox, &what.status);
        }
    }

    /// RFC 3501 section 6.3.9: what is above a name that is subscribed to is shown where the name itself is not.
    fn put_lsub(&mut self, name: &Name, mailboxes: &[Mailbox]) {
        let named = name.name(mailboxes);
        match name.mailbox(mailboxes) {
            Some(mailbox) if mailbox.subscribed => self.put_line("LSUB", &mailbox.special_use, named, ""),
            _ if name.known.has_hidden => self.put_line("LSUB", "\\Noselect", named, ""),
            _ => {}
        }
    }

    pub(super) fn put_line(&mut self, command: &str, attributes: &str, name: &str, behind: &str) {
        let mut line = BytesMut::new();
        let _ = write!(line, "* {command} ({attributes}) \"/\" ");
        self.write_name(&mut line, name);
        let _ = write!(line, "{behind}\r\n");
        self.put(line.freeze());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn mailbox(name: &str, exists: bool, subscribed: bool) -> Mailbox {
        Mailbox {
            name: name.into(),
            exists,
            special_use: if name == "Junk" { "\\Junk".into() } else { String::new() },
            subscribed,
            uidvalidity: 1,
            uidnext: 2,
            messages: 3,
            unseen: 1,
            deleted: 1,
            deleted_bytes: 0,
            bytes: 70,
            modseq: 9,
            recent: 0,
        }
    }

    #[track_caller]
    fn check(said: &str, want: &[&str]) {
        let (tag, what) = extended::list(format!("a {said}\r\n").as_bytes()).expect("it can be read");
        assert_eq!(tag, "a");
        heard(Command::List, what, want);
    }

    #[track_caller]
    fn lsub(pattern: &str, want: &[&str]) {
        let what = Listed { patterns: vec![pattern.into()], subscribed: true, ..Listed::default() };
        heard(Command::Lsub, what, want);
    }

    #[track_caller]
    fn heard(command: Command, what: Listed, want: &[&str]) {
        let mailboxes = vec![
            mailbox("INBOX", true, true),
            mailbox("Junk", true, false),
            mailbox("a/b", true, false),
            mailbox("a/b/c", true, true),
            mailbox("gone/x", false, true),
        ];
        let (heard, _) = list(command, what, mailboxes);
        assert_eq!(heard, want.iter().map(|&line| line.to_owned()).collect());
    }

    /// What is said, and how many lines at once.
    fn list(command: Command, what: Listed, mailboxes: Vec<Mailbox>) -> (BTreeSet<String>, usize) {
        let mut session = crate::imap::session::tests::session();
        session.output.clear();
        session.running = Some(Running {
            tag: "a".into(),
            name: "LIST",
            job: Job::List(Box::new(listing(command, what, mailboxes))),
            refreshing: false,
        });
        let text = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned();
        let (mut heard, mut most) = (BTreeSet::new(), 0);
        while session.running.is_some() {
            session.go_on();
            most = most.max(session.output.len());
            heard.extend(session.output.drain(..).map(text));
        }
        assert!(heard.remove("a OK LIST done"));
        (heard, most)
    }

    fn listing(command: Command, what: Listed, mailboxes: Vec<Mailbox>) -> Listing {
        let pattern = |pattern: &Vec<u8>| Pattern::new(&names::decode(pattern, names::Spelling::Modified)?);
        let patterns = what.patterns.iter().filter_map(pattern).collect();
        let mut listing = Listing { patterns, what, command, names: Names::Asked };
        listing.take(mailboxes);
        listing
    }

    #[test]
    fn what_is_above_a_mailbox_is_listed() {
        check(
            "LIST \"\" %",
            &[
                "* LIST (\\HasNoChildren) \"/\" \"INBOX\"",
                "* LIST (\\HasNoChildren \\Junk) \"/\" \"Junk\"",
                "* LIST (\\NonExistent \\Noselect \\HasChildren) \"/\" \"a\"",
            ],
        );
        check("LIST \"\" a/*", &["* LIST (\\HasChildren) \"/\" \"a/b\"", "* LIST (\\HasNoChildren) \"/\" \"a/b/c\""]);
    }

    #[test]
    fn what_is_subscribed_to() {
        check(
            "LIST (SUBSCRIBED) \"\" *",
            &[
                "* LIST (\\HasNoChildren \\Subscribed) \"/\" \"INBOX\"",
                "* LIST (\\HasNoChildren \\Subscribed) \"/\" \"a/b/c\"",
                "* LIST (\\NonExistent \\HasNoChildren \\Subscribed) \"/\" \"gone/x\"",
            ],
        );
        check(
            "LIST (SUBSCRIBED RECURSIVEMATCH) \"\" (a gone)",
            &[
                "* LIST (\\NonExistent \\HasChildren) \"/\" \"a\" (\"CHILDINFO\" (\"SUBSCRIBED\"))",
                "* LIST (\\NonExistent \\HasNoChildren) \"/\" \"gone\" (\"CHILDINFO\" (\"SUBSCRIBED\"))",
            ],
        );
        check("LIST \"\" INBOX RETURN (SUBSCRIBED)", &["* LIST (\\HasNoChildren \\Subscribed) \"/\" \"INBOX\""]);
    }

    #[test]
    fn lsub_shows_what_is_above() {
        lsub("*", &["* LSUB () \"/\" \"INBOX\"", "* LSUB () \"/\" \"a/b/c\"", "* LSUB () \"/\" \"gone/x\""]);
        lsub(
            "%",
            &["* LSUB () \"/\" \"INBOX\"", "* LSUB (\\Noselect) \"/\" \"a\"", "* LSUB (\\Noselect) \"/\" \"gone\""],
        );
    }

    #[test]
    fn uses_and_status() {
        check("LIST (SPECIAL-USE) \"\" *", &["* LIST (\\HasNoChildren \\Junk) \"/\" \"Junk\""]);
        check(
            "LIST \"\" Junk RETURN (SPECIAL-USE STATUS (MESSAGES SIZE DELETED))",
            &["* LIST (\\HasNoChildren \\Junk) \"/\" \"Junk\"", "* STATUS \"Junk\" (MESSAGES 3 SIZE 70 DELETED 1)"],
        );
    }

    #[test]
    fn very_many_mailboxes_are_told_in_portions() {
        let (_, what) = extended::list(b"a LIST \"\" * RETURN (STATUS (SIZE))\r\n").expect("it can be read");
        let mailboxes = (0..2000).map(|at| mailbox(&format!("m{at}"), true, false)).collect();
        let (heard, most) = list(Command::List, what, mailboxes);
        assert_eq!((heard.len(), most), (4000, 2 * PORTION));
    }

    #[test]
    fn an_item_of_a_status_is_told_once() {
        check(
            "LIST \"\" Junk RETURN (STATUS (SIZE MESSAGES size SIZE))",
            &["* LIST (\\HasNoChildren \\Junk) \"/\" \"Junk\"", "* STATUS \"Junk\" (SIZE 70 MESSAGES 3)"],
        );
    }

    /// Ten thousand names of 32 levels each would be compared with each pattern at each level, while other sessions
    /// wait.
    #[test]
    fn very_many_names_are_looked_for_where_nobody_waits() {
        let all = || Listed { patterns: vec![b"*".into()], ..Listed::default() };
        let names = |count: usize, levels: usize| {
            let name = |at: usize| mailbox(&format!("{at}{}", "/some word".repeat(levels)), false, true);
            (0..count).map(name).collect::<Vec<_>>()
        };
        let steps = |mailboxes| listing(Command::List, all(), mailboxes).steps();
        assert!(steps(names(1000, 2)) < 100_000, "that is quick");
        assert!(steps(names(10_000, 31)) > 1_000_000);
        let mailboxes = names(100, 31);
        assert_eq!(levels::listed(&mailboxes, &listing(Command::List, all(), Vec::new()).patterns).len(), 3200);
    }
}
