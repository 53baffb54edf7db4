//! LIST and LSUB: which mailboxes there are, what is above them, and what is subscribed to.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::BytesMut;
use imap_types::core::Tag;
use imap_types::mailbox::{ListMailbox, Mailbox as MailboxName};
use imap_types::status::StatusDataItemName;

use super::ImapSession;
use super::job::Job;
use super::naming::wire;
use crate::imap::extended::list::{self as extended, Listed};
use crate::imap::names::{self, Pattern};
use crate::imap::question::{Mailbox, Question};

/// Patterns of a command: each name is compared with each of them.
const PATTERNS: usize = 10;

/// What is listed.
#[derive(Debug)]
pub(super) struct Listing {
    patterns: Vec<Pattern>,
    what: Listed,
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    List,
    Lsub,
}

/// What is known of a name.
#[derive(Default)]
struct Known<'a> {
    mailbox: Option<&'a Mailbox>,
    has_children: bool,
    has_subscribed: bool,
    /// Something below it is subscribed to and not listed itself.
    has_hidden: bool,
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
        let patterns = what.patterns.iter().filter_map(whole).filter_map(|pattern| Pattern::new(&pattern)).collect();
        self.asked_modseq(what.status.contains(&StatusDataItemName::HighestModSeq));
        let job = Job::List(Box::new(Listing { patterns, what, command }));
        self.ask(tag, named, Question::Mailboxes, job);
    }

    pub(super) fn put_list(&mut self, listing: &Listing, mailboxes: &[Mailbox]) {
        let known = known(mailboxes, &listing.patterns);
        for (name, known) in &known {
            if listing.patterns.iter().any(|pattern| pattern.matches(name)) {
                match listing.command {
                    Command::List => self.put_name(listing, name, known),
                    Command::Lsub => self.put_lsub(name, known),
                }
            }
        }
    }

    fn put_name(&mut self, listing: &Listing, name: &str, known: &Known<'_>) {
        let what = &listing.what;
        let mailbox = known.mailbox.filter(|mailbox| mailbox.exists);
        let is_subscribed = known.mailbox.is_some_and(|mailbox| mailbox.subscribed);
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
        self.put_line("LIST", &attributes.join(" "), name, child);
        if let Some(mailbox) = mailbox.filter(|_| !what.status.is_empty()) {
            self.put_status(mailbox, &what.status);
        }
    }

    /// RFC 3501 section 6.3.9: what is above a name that is subscribed to is shown where the name itself is not.
    fn put_lsub(&mut self, name: &str, known: &Known<'_>) {
        match known.mailbox {
            Some(mailbox) if mailbox.subscribed => self.put_line("LSUB", &mailbox.special_use, name, ""),
            _ if known.has_hidden => self.put_line("LSUB", "\\Noselect", name, ""),
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

/// Every name that there is, or that is above one, or that is subscribed to.
fn known<'a>(mailboxes: &'a [Mailbox], patterns: &[Pattern]) -> BTreeMap<&'a str, Known<'a>> {
    let mut known: BTreeMap<&str, Known<'a>> = BTreeMap::new();
    for mailbox in mailboxes {
        known.entry(&mailbox.name).or_default().mailbox = Some(mailbox);
        let is_hidden = mailbox.subscribed && !patterns.iter().any(|pattern| pattern.matches(&mailbox.name));
        for (at, _) in mailbox.name.match_indices('/') {
            let above = known.entry(&mailbox.name[..at]).or_default();
            above.has_children |= mailbox.exists;
            above.has_subscribed |= mailbox.subscribed;
            above.has_hidden |= is_hidden;
        }
    }
    known
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
        let limits = crate::imap::Limits::default();
        let mut session =
            ImapSession::new(limits, crate::session::Tls::Unavailable, crate::session::Cleartext::Allowed);
        session.output.clear();
        let pattern = |pattern: &Vec<u8>| Pattern::new(&names::decode(pattern, names::Spelling::Modified)?);
        let patterns = what.patterns.iter().filter_map(pattern).collect();
        let mailboxes = [
            mailbox("INBOX", true, true),
            mailbox("Junk", true, false),
            mailbox("a/b", true, false),
            mailbox("a/b/c", true, true),
            mailbox("gone/x", false, true),
        ];
        session.put_list(&Listing { patterns, what, command }, &mailboxes);
        let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).trim_end().to_owned();
        assert_eq!(
            session.output.iter().map(text).collect::<BTreeSet<_>>(),
            want.iter().map(|&line| line.to_owned()).collect()
        );
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
}
