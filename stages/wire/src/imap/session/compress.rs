//! COMPRESS (RFC 4978): after the login both sides may pack what they say. Not before: what is packed together with a
//! password tells of it by its length.

use super::ImapSession;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compress {
    Off,
    /// Once the answer is sent.
    Asked,
    On,
}

impl ImapSession {
    /// There is one algorithm; others cannot be read.
    pub(super) fn compress(&mut self, tag: &str) {
        if self.compress == Compress::On {
            return self.done(tag, "NO [COMPRESSIONACTIVE] it is compressed already");
        }
        self.done(tag, "OK what follows is compressed");
        self.compress = Compress::Asked;
    }
}
