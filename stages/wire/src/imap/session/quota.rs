//! QUOTA (RFC 9208): an account is its one quota root, which has no name. Operators set its limits.

use imap_types::core::AString;
use imap_types::mailbox::Mailbox as MailboxName;

use super::ImapSession;
use super::job::Job;
use crate::imap::question::{Question, Quota};

/// STORAGE is counted in these.
const UNIT: u64 = 1024;

impl ImapSession {
    pub(super) fn get_quota(&mut self, tag: String, root: &AString<'_>) {
        if !root.as_ref().is_empty() {
            return self.done(&tag, "NO [NONEXISTENT] there is no such quota root");
        }
        self.ask(tag, "GETQUOTA", Question::Quota, Job::Quota);
    }

    pub(super) fn get_quota_root(&mut self, tag: String, mailbox: &MailboxName<'_>) {
        let Some(name) = self.named(&tag, mailbox) else { return };
        let mut line = bytes::BytesMut::from(&b"* QUOTAROOT "[..]);
        self.write_name(&mut line, &name);
        line.extend_from_slice(b" \"\"\r\n");
        self.put(line.freeze());
        self.ask(tag, "GETQUOTAROOT", Question::Quota, Job::Quota);
    }

    /// Only what has a limit is told.
    pub(super) fn put_quota(&mut self, quota: &Quota) {
        let storage = quota.bytes.map(|(used, limit)| (used.div_ceil(UNIT), limit / UNIT));
        let all = [("STORAGE", storage), ("MESSAGE", quota.messages)];
        let told = all.into_iter().filter_map(|(name, of)| of.map(|(used, limit)| format!("{name} {used} {limit}")));
        let told = told.collect::<Vec<_>>().join(" ");
        self.put(format!("* QUOTA \"\" ({told})\r\n"));
    }
}
