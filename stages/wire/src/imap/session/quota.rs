//! QUOTA (RFC 9208): an account is its one quota root, which has no name. Operators set its limits.

use imap_types::core::AString;
use imap_types::mailbox::Mailbox as MailboxName;

use super::ImapSession;
use super::job::{Job, Running};
use crate::imap::question::{Question, Quota};

/// STORAGE is counted in these.
const UNIT: u64 = 1024;

impl ImapSession {
    pub(super) fn get_quota(&mut self, tag: String, root: &AString<'_>) {
        if !root.as_ref().is_empty() {
            return self.done(&tag, "NO [NONEXISTENT] there is no such quota root");
        }
        self.ask(tag, "GETQUOTA", Question::Quota, Job::Quota(None));
    }

    pub(super) fn get_quota_root(&mut self, tag: String, mailbox: &MailboxName<'_>) {
        let Some(name) = self.named(&tag, mailbox) else { return };
        self.ask(tag, "GETQUOTAROOT", Question::Quota, Job::Quota(Some(name)));
    }

    /// Only what has a limit is told. Without any there is no root: a response has to tell of one resource at least
    /// (RFC 9208 section 5).
    pub(super) fn tell_quota(&mut self, running: &Running, root_of: Option<&str>, quota: &Quota) {
        let has_limits = quota.bytes.is_some() || quota.messages.is_some();
        if let Some(name) = root_of {
            let mut line = bytes::BytesMut::from(&b"* QUOTAROOT "[..]);
            self.write_name(&mut line, name);
            line.extend_from_slice(if has_limits { b" \"\"\r\n" } else { b"\r\n" });
            self.put(line.freeze());
        } else if !has_limits {
            return self.done(&running.tag, "NO [NONEXISTENT] there is no such quota root");
        }
        if has_limits {
            self.put_quota(quota);
        }
        self.finish(running);
    }

    fn put_quota(&mut self, quota: &Quota) {
        let storage = quota.bytes.map(|(used, limit)| (used.div_ceil(UNIT), limit / UNIT));
        let all = [("STORAGE", storage), ("MESSAGE", quota.messages)];
        let told = all.into_iter().filter_map(|(name, of)| of.map(|(used, limit)| format!("{name} {used} {limit}")));
        let told = told.collect::<Vec<_>>().join(" ");
        self.put(format!("* QUOTA \"\" ({told})\r\n"));
    }
}
