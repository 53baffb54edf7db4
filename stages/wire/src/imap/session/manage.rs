//! Making, renaming, deleting and subscribing to mailboxes (RFC 3501 sections 6.3.3 to 6.3.7).

use bytes::BytesMut;

use super::ImapSession;
use super::job::Job;
use super::naming::{Ending, wire};
use crate::imap::names;
use crate::imap::question::{Manage, No, Question};
use imap_types::command::CommandBody;

impl ImapSession {
    pub(super) fn manage(&mut self, tag: String, body: CommandBody<'static>) {
        match body {
            CommandBody::Create { mailbox } => {
                let Some(name) = self.new_name(&tag, wire(&mailbox)) else { return };
                self.ask_to(tag, "CREATE", Manage::Create { name, special_use: String::new() });
            }
            CommandBody::Delete { mailbox } => {
                let Some(name) = self.checked(&tag, wire(&mailbox), Ending::Exact) else { return };
                self.ask_to(tag, "DELETE", Manage::Delete(name));
            }
            CommandBody::Rename { from, to } => {
                let Some(from) = self.checked(&tag, wire(&from), Ending::Exact) else { return };
                let Some(to) = self.new_name(&tag, wire(&to)) else { return };
                self.ask_to(tag, "RENAME", Manage::Rename { from, to });
            }
            CommandBody::Subscribe { mailbox } => {
                let Some(name) = self.checked(&tag, wire(&mailbox), Ending::MaySeparate) else { return };
                self.ask_to(tag, "SUBSCRIBE", Manage::Subscribe(name));
            }
            CommandBody::Unsubscribe { mailbox } => {
                let Some(name) = self.checked(&tag, wire(&mailbox), Ending::MaySeparate) else { return };
                self.ask_to(tag, "UNSUBSCRIBE", Manage::Unsubscribe(name));
            }
            _ => self.done(&tag, "NO [CANNOT] this command is not supported"),
        }
    }

    /// A mailbox with a special use is made.
    pub(super) fn create(&mut self, tag: String, name: &[u8], special_use: String) {
        if let Some(name) = self.new_name(&tag, name) {
            self.ask_to(tag, "CREATE", Manage::Create { name, special_use });
        }
    }

    /// The name of a mailbox that is made, if it may be one; else the client has been told.
    fn new_name(&mut self, tag: &str, wire: &[u8]) -> Option<String> {
        let name = self.checked(tag, wire, Ending::MaySeparate)?;
        if !names::is_composed(&name) {
            self.done(tag, "NO [CANNOT] the letters and accents of a new name are to be composed (Unicode NFC)");
            return None;
        }
        Some(name)
    }

    fn ask_to(&mut self, tag: String, command: &'static str, manage: Manage) {
        self.ask(tag, command, Question::Manage(manage.clone()), Job::Manage(manage));
    }

    /// What was asked for is done.
    pub(super) fn managed(&mut self, tag: &str, command: &str, manage: &Manage) {
        let selected = self.selected.as_mut().map(|selected| &mut selected.name);
        match (manage, selected) {
            // The selected mailbox is no more under its name; what the client had selected is closed.
            (Manage::Delete(name), Some(selected)) if selected == name => self.close_gone(),
            (Manage::Rename { from, .. }, Some(selected)) if selected == from && from == "INBOX" => self.close_gone(),
            (Manage::Rename { from, to }, Some(selected)) => {
                if let Some(rest) = selected.strip_prefix(from.as_str()).filter(|rest| is_below(rest)) {
                    *selected = format!("{to}{rest}");
                }
            }
            _ => {}
        }
        if let Manage::Rename { from, to } = manage
            && self.tells.rev2
            && from != "INBOX"
        {
            self.put_renamed(from, to);
        }
        self.done(tag, &format!("OK {command} done"));
    }

    /// RFC 9051 section 6.3.9.7. The INBOX is still there under its name.
    fn put_renamed(&mut self, from: &str, to: &str) {
        let mut behind = BytesMut::from(&b" (\"OLDNAME\" ("[..]);
        self.write_name(&mut behind, from);
        behind.extend_from_slice(b"))");
        self.put_line("LIST", "", to, &String::from_utf8_lossy(&behind));
    }

    fn close_gone(&mut self) {
        self.selected = None;
        self.put("* OK [CLOSED] the mailbox that was selected is gone\r\n");
    }

    pub(super) fn refuse(&mut self, tag: &str, why: No) {
        self.done(tag, &format!("NO {}", why.words()));
    }
}

impl No {
    /// The response code (RFC 5530), and what a person reads.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Exists => "[ALREADYEXISTS] there is such a mailbox already",
            Self::NoSuch => "[NONEXISTENT] there is no such mailbox",
            Self::HasInferiors => "[HASCHILDREN] it is there only for the mailboxes below it",
            Self::TooMany => "[LIMIT] there would be too many, or a name would be too long",
            Self::Cannot => "[CANNOT] this cannot be done with this mailbox",
            Self::Full => "[OVERQUOTA] the account has no room for it",
            // RFC 6154 section 3.
            Self::UseTaken => "[USEATTR] another mailbox has this use",
        }
    }
}

/// Whether what follows a name makes it the name itself, or one below it.
fn is_below(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}
