//! IDLE (RFC 2177): the client waits, and is told of changes as they come.

use super::ImapSession;
use super::job::Job;
use imap_codec::IdleDoneCodec;

impl ImapSession {
    pub(super) fn idle(&mut self, tag: String) {
        self.put("+ idling\r\n");
        self.idling = Some(tag);
    }

    /// The client has said something while it was idle: it is to be DONE.
    pub(super) fn end_idle(&mut self, tag: &str) {
        match self.fragments.decode_message(&IdleDoneCodec::default()) {
            Ok(_) => self.done(tag, "OK IDLE done"),
            Err(_) => self.mistake(tag, "DONE was expected"),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.idling.is_some() && self.selected.is_some()
    }

    /// There may be something to tell.
    pub(super) fn look_again(&mut self) {
        if self.is_idle() && self.running.is_none() {
            self.refresh(String::new(), "IDLE", Job::Idle);
        }
    }
}
