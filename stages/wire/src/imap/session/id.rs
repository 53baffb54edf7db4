//! ID (RFC 2971): who the server is. What the client says of itself is of no use here.
//!
//! A client may say 31 KB of that, before the login too, where no command is kept that is so long. So one that is too
//! long to be kept is known by its beginning: what follows was read over, and makes no difference.

use super::ImapSession;

impl ImapSession {
    /// Nobody should learn more from it than the greeting says.
    pub(super) fn identify(&mut self, tag: &str) {
        self.put("* ID (\"name\" \"Chainmail\")\r\n");
        self.done(tag, "OK ID done");
    }

    /// Answers an ID that was too long to be kept. Says whether it was one.
    pub(super) fn read_long_id(&mut self) -> bool {
        let begin = self.fragments.message_bytes().splitn(3, |&octet| octet == b' ').collect::<Vec<_>>();
        let [_, command, fields] = begin.as_slice() else { return false };
        let is_long = self.fragments.is_max_message_size_exceeded() && !self.fragments.is_message_poisoned();
        if !is_long || !command.eq_ignore_ascii_case(b"ID") || !fields.starts_with(b"(") {
            return false;
        }
        let Some(tag) = self.fragments.decode_tag().map(|tag| tag.inner().to_owned()) else { return false };
        self.identify(&tag);
        true
    }
}
