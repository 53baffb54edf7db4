//! Making, renaming, deleting and subscribing to mailboxes (RFC 3501 sections 6.3.3 to 6.3.7).

use super::ImapSession;
use super::job::Job;
use super::mailboxes::mailbox_name;
use crate::imap::names;
use crate::imap::question::{Manage, No, Question};
use imap_types::command::CommandBody;
use imap_types::mailbox::Mailbox as MailboxName;

impl ImapSession {
    pub(super) fn manage(&mut self, tag: String, body: CommandBody<'static>) {
        match body {
            CommandBody::Create { mailbox } => {
                let Some(name) = self.good_name(&tag, &mailbox, Ending::MaySeparate) else { return };
                self.ask_to(tag, "CREATE", Manage::Create { name, special_use: String::new() });
            }
            CommandBody::Delete { mailbox } => {
                let Some(name) = self.good_name(&tag, &mailbox, Ending::Exact) else { return };
                self.ask_to(tag, "DELETE", Manage::Delete(name));
            }
            CommandBody::Rename { from, to } => {
                let Some(from) = self.good_name(&tag, &from, Ending::Exact) else { return };
                let Some(to) = self.good_name(&tag, &to, Ending::MaySeparate) else { return };
                self.ask_to(tag, "RENAME", Manage::Rename { from, to });
            }
            CommandBody::Subscribe { mailbox } => {
                let Some(name) = self.good_name(&tag, &mailbox, Ending::MaySeparate) else { return };
                self.ask_to(tag, "SUBSCRIBE", Manage::Subscribe(name));
            }
            CommandBody::Unsubscribe { mailbox } => {
                let Some(name) = self.good_name(&tag, &mailbox, Ending::MaySeparate) else { return };
                self.ask_to(tag, "UNSUBSCRIBE", Manage::Unsubscribe(name));
            }
            _ => self.done(&tag, "NO [CANNOT] this command is not supported"),
        }
    }

    /// A mailbox with a special use is made.
    pub(super) fn create(&mut self, tag: String, name: String, special_use: String) {
        if let Some(name) = self.checked(&tag, name, Ending::MaySeparate) {
            self.ask_to(tag, "CREATE", Manage::Create { name, special_use });
        }
    }

    fn ask_to(&mut self, tag: String, command: &'static str, manage: Manage) {
        self.ask(tag, command, Question::Manage(manage.clone()), Job::Manage(manage));
    }

    /// The name, if it may be one; else the client has been told.
    fn good_name(&mut self, tag: &str, mailbox: &MailboxName<'_>, ending: Ending) -> Option<String> {
        let Some(name) = mailbox_name(mailbox) else {
            self.mistake(tag, "the mailbox's name is not modified UTF-7");
            return None;
        };
        self.checked(tag, name, ending)
    }

    fn checked(&mut self, tag: &str, mut name: String, ending: Ending) -> Option<String> {
        // It says that there will be mailboxes below it, which is always so (RFC 3501 section 6.3.3).
        if ending == Ending::MaySeparate && name.ends_with('/') {
            name.pop();
        }
        if names::is_mailbox_name(&name) {
            return Some(name);
        }
        self.done(tag, "NO [CANNOT] no mailbox can have this name");
        None
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
        self.done(tag, &format!("OK {command} done"));
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
        }
    }
}

/// How a name may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Exact,
    MaySeparate,
}

/// Whether what follows a name makes it the name itself, or one below it.
fn is_below(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}
