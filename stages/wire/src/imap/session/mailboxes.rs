//! Mailboxes: listing, status, selecting.

use super::ImapSession;
use super::condstore::Known;
use super::job::{Job, Mode, Running, Selected};
use super::recent::Recent;
use crate::imap::extended::list::once;
use crate::imap::question::{Answer, Mailbox, MessageRow, Question, View, flags};
use imap_types::command::{CommandBody, SelectParameter};
use imap_types::mailbox::Mailbox as MailboxName;
use imap_types::status::StatusDataItemName;

/// The question whose answer tells these items.
pub(super) fn of_mailboxes(items: &[StatusDataItemName]) -> Question {
    if items.contains(&StatusDataItemName::DeletedStorage) {
        Question::MailboxesWithDeleted
    } else {
        Question::Mailboxes
    }
}

impl ImapSession {
    pub(super) fn after_login(&mut self, tag: String, body: CommandBody<'static>) {
        match body {
            CommandBody::Lsub { reference, mailbox_wildcard } => self.lsub(tag, &reference, &mailbox_wildcard),
            CommandBody::Namespace => {
                self.put("* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n");
                self.done(&tag, "OK NAMESPACE done");
            }
            CommandBody::GetQuota { root } => self.get_quota(tag, &root),
            CommandBody::GetQuotaRoot { mailbox } => self.get_quota_root(tag, &mailbox),
            CommandBody::SetQuota { .. } => self.done(&tag, "NO [NOPERM] only an operator sets limits"),
            CommandBody::Status { mailbox, item_names } => {
                let items = once(item_names.to_vec());
                self.asked_modseq(items.contains(&StatusDataItemName::HighestModSeq));
                let Some(name) = self.named(&tag, &mailbox) else { return };
                let question = match of_mailboxes(&items) {
                    Question::Mailboxes => Question::Mailbox(name.clone()),
                    _ => Question::MailboxWithDeleted(name.clone()),
                };
                self.ask(tag, "STATUS", question, Job::Status { name, items });
            }
            CommandBody::Create { .. }
            | CommandBody::Delete { .. }
            | CommandBody::Rename { .. }
            | CommandBody::Subscribe { .. }
            | CommandBody::Unsubscribe { .. } => self.manage(tag, body),
            CommandBody::Select { mailbox, parameters } => {
                self.open(tag, "SELECT", &mailbox, Mode::ReadWrite, parameters);
            }
            CommandBody::Examine { mailbox, parameters } => {
                self.open(tag, "EXAMINE", &mailbox, Mode::ReadOnly, parameters);
            }
            body if self.selected.is_some() => self.in_mailbox(tag, body),
            CommandBody::Fetch { .. }
            | CommandBody::Store { .. }
            | CommandBody::Search { .. }
            | CommandBody::Sort { .. }
            | CommandBody::Thread { .. }
            | CommandBody::Expunge
            | CommandBody::ExpungeUid { .. }
            | CommandBody::Copy { .. }
            | CommandBody::Move { .. }
            | CommandBody::Close
            | CommandBody::Unselect => self.mistake(&tag, "select a mailbox first"),
            CommandBody::Login { .. } | CommandBody::Authenticate { .. } | CommandBody::StartTLS => {
                self.mistake(&tag, "you are logged in already");
            }
            _ => self.done(&tag, "NO [CANNOT] this command is not supported"),
        }
    }

    pub(super) fn open(
        &mut self,
        tag: String,
        command: &'static str,
        mailbox: &MailboxName<'_>,
        mode: Mode,
        parameters: Vec<SelectParameter>,
    ) {
        if self.selected.take().is_some() {
            // RFC 7162 section 3.2.11.
            self.put("* OK [CLOSED] what follows is of another mailbox\r\n");
        }
        let known = match self.known(parameters) {
            Ok(known) => known,
            Err(why) => return self.mistake(&tag, why),
        };
        let Some(name) = self.named(&tag, mailbox) else { return };
        let question = self.look(name.clone(), mode);
        self.ask(tag, command, question, Job::Open { name, mode, known });
    }

    /// What mailboxes there are, and what of them was asked.
    pub(super) fn answered_of_names(&mut self, running: &Running, answer: Answer) {
        match (&running.job, answer) {
            (Job::Quota(root_of), Answer::Quota(quota)) => self.tell_quota(running, root_of.as_deref(), &quota),
            (Job::Status { name, items }, Answer::Mailboxes(mailboxes)) => {
                match mailboxes.iter().find(|mailbox| mailbox.name == *name && mailbox.exists) {
                    Some(mailbox) => {
                        self.put_status(mailbox, items);
                        self.finish(running);
                    }
                    None => self.done(&running.tag, "NO [NONEXISTENT] there is no such mailbox"),
                }
            }
            (_, _) => self.done(&running.tag, "NO [SERVERBUG] an answer did not fit its question"),
        }
    }

    pub(super) fn put_status(&mut self, mailbox: &Mailbox, items: &[StatusDataItemName]) {
        let mut line = bytes::BytesMut::from(&b"* STATUS "[..]);
        self.write_name(&mut line, &mailbox.name);
        // RFC 9051 has done away with it; whoever asks all the same gets a number.
        let recent = if self.tells.rev2 { 0 } else { mailbox.recent };
        let items = items.iter().map(|item| match item {
            StatusDataItemName::Messages => format!("MESSAGES {}", mailbox.messages),
            StatusDataItemName::Recent => format!("RECENT {recent}"),
            StatusDataItemName::UidNext => format!("UIDNEXT {}", mailbox.uidnext),
            StatusDataItemName::UidValidity => format!("UIDVALIDITY {}", mailbox.uidvalidity),
            StatusDataItemName::Unseen => format!("UNSEEN {}", mailbox.unseen),
            StatusDataItemName::Size => format!("SIZE {}", mailbox.bytes),
            StatusDataItemName::Deleted => format!("DELETED {}", mailbox.deleted),
            // RFC 9208: in bytes.
            StatusDataItemName::DeletedStorage => format!("DELETED-STORAGE {}", mailbox.deleted_bytes),
            StatusDataItemName::HighestModSeq => format!("HIGHESTMODSEQ {}", mailbox.modseq),
        });
        line.extend_from_slice(format!(" ({})\r\n", items.collect::<Vec<_>>().join(" ")).as_bytes());
        self.put(line.freeze());
    }

    pub(super) fn opened(&mut self, running: &Running, name: String, mode: Mode, view: View, known: Option<Known>) {
        let count = view.messages.len();
        // RFC 9051 has done away with RECENT and UNSEEN here, and has put LIST in their place.
        let rev2 = self.tells.rev2;
        let recent = Recent::of(&view);
        let line = if rev2 { String::new() } else { recent.line() };
        self.put(format!("* {count} EXISTS\r\n{line}* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n"));
        let permanent =
            if mode == Mode::ReadOnly { "()" } else { "(\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)" };
        self.put(format!("* OK [PERMANENTFLAGS {permanent}] flags that are kept\r\n"));
        let is_unseen = |row: &MessageRow| row.flags & flags::SEEN == 0;
        if rev2 {
            self.put_line("LIST", "", &name, "");
        } else if let Some(first) = view.messages.iter().position(is_unseen) {
            self.put(format!("* OK [UNSEEN {}] the first that is not seen\r\n", first + 1));
        }
        self.put(format!(
            "* OK [UIDVALIDITY {}] as long as UIDs hold\r\n* OK [UIDNEXT {}] the next UID\r\n",
            view.uidvalidity, view.uidnext
        ));
        self.put(format!("* OK [HIGHESTMODSEQ {}] of all changes so far\r\n", view.modseq));
        let code = if mode == Mode::ReadOnly { "READ-ONLY" } else { "READ-WRITE" };
        let end = format!("OK [{code}] {} done", running.name);
        let (messages, uidnext, modseq) = (view.messages.clone(), view.uidnext, view.modseq);
        self.selected = Some(Selected { name, mode, messages, uidnext, modseq, recent, saved: Vec::new() });
        self.resync(running, known, &view, end);
    }
}
