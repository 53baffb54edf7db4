//! What one SMTP client may take up, and whether it can have TLS.
//!
//! Every limit that is hit is answered; none makes the session lose its place in the stream.

/// What a client may take up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a command line with its end. RFC 5321 section 4.5.3.1.4 asks for 512 and more for each extension; DSN's
    /// ORCPT needs most, 500. Default 2,048.
    pub line: usize,
    /// Bytes of a message; told to the client by SIZE (RFC 1870). 25 MiB, the default, is what large providers take.
    pub message: u64,
    /// Bytes of a message's header section. Real ones have 4 to 10 KiB; the stages behind read it whole, so a huge one
    /// is work for everybody. Default 256 KiB.
    pub header: u64,
    /// Recipients of one message. RFC 5321 section 4.5.3.1.8 asks for 100 at least; the default, 1,000, is what other
    /// servers take, so that senders do not have to split their lists.
    pub recipients: usize,
    /// Commands that get a 5xx reply, since the last message was taken, before the connection is closed. Default 20: an
    /// honest client makes a handful.
    pub errors: u32,
    /// Commands between two messages that bring none nearer, before the connection is closed. Default 100: a client
    /// that keeps a connection open for more mail sends a NOOP or RSET now and then.
    pub idle_commands: u32,
    /// Messages on one connection, 0 for as many as the client has. The default is 0: starting anew costs both sides
    /// more than going on.
    pub mails: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line: 2048,
            message: 25 << 20,
            header: 256 << 10,
            recipients: 1000,
            errors: 20,
            idle_commands: 100,
            mails: 0,
        }
    }
}
