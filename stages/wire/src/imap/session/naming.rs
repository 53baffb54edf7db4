//! Mailbox names, as this client writes and reads them. A name that none can have is refused in the same words,
//! whatever the command: one that cannot be decoded, as well as one that no mailbox may have.

use bytes::BytesMut;
use imap_types::mailbox::Mailbox as MailboxName;

use super::ImapSession;
use crate::imap::names::{self, Spelling};

/// It is no mistake in the grammar, so that it is not BAD; and no TRYCREATE, which would not help.
pub(super) const NO_NAME: &str = "NO [CANNOT] no mailbox can have this name";

/// How a name may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Exact,
    MaySeparate,
}

impl ImapSession {
    pub(super) fn spelling(&self) -> Spelling {
        if self.tells.utf8() { Spelling::Utf8 } else { Spelling::Modified }
    }

    /// The name, if it may be one; else the client has been told.
    pub(super) fn named(&mut self, tag: &str, mailbox: &MailboxName<'_>) -> Option<String> {
        self.checked(tag, wire(mailbox), Ending::Exact)
    }

    /// The same of a name as it came.
    pub(super) fn checked(&mut self, tag: &str, wire: &[u8], ending: Ending) -> Option<String> {
        let name = good(wire, self.spelling(), ending);
        if name.is_none() {
            self.done(tag, NO_NAME);
        }
        name
    }

    pub(super) fn write_name(&self, line: &mut BytesMut, name: &str) {
        names::write(line, name, self.spelling());
    }
}

/// The name, if it may be one.
pub(super) fn good(wire: &[u8], spelling: Spelling, ending: Ending) -> Option<String> {
    let mut name = names::decode(wire, spelling)?;
    // It says that there will be mailboxes below it, which is always so (RFC 3501 section 6.3.3).
    if ending == Ending::MaySeparate && name.ends_with('/') {
        name.pop();
    }
    names::is_mailbox_name(&name).then_some(name)
}

/// A name as it came.
pub(super) fn wire<'a>(mailbox: &'a MailboxName<'_>) -> &'a [u8] {
    match mailbox {
        MailboxName::Inbox => b"INBOX",
        MailboxName::Other(other) => other.as_ref(),
    }
}
