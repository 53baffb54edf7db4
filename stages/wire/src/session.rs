//! The shape that every protocol session has: bytes in, bytes and questions out.
//!
//! A session owns no socket and no clock. Whoever drives it feeds it what arrives, carries out what it asks for, one
//! step at a time, and tells it what became of it. The same bytes in any split give the same steps.

use bytes::Bytes;

/// What the driver of a session must do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<Q> {
    /// Nothing to do before more bytes arrive: read, and feed them with [`Session::input`].
    NeedInput,
    /// Write these bytes to the peer. Several of these may follow each other; they may be written together.
    Output(Bytes),
    /// Find the answer to this question and give it with [`Session::answer`]; no other step comes before that.
    Ask(Q),
    /// Write out what was put out before, perform the server's side of a TLS handshake, then call
    /// [`Session::tls_started`].
    StartTls,
    /// Write out what was put out before, pack both directions from then on (RFC 4978), then call
    /// [`Session::compressed`].
    Compress,
    /// Write out what was put out before, then close the connection.
    Close,
}

/// Why a session is asked to end although its peer did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// The peer sent nothing, or took nothing, for too long.
    TimedOut,
    /// The server is shutting down.
    ShuttingDown,
    /// The peer may not be logged in any more.
    LoginOver,
}

/// Whether the client can have TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// It is offered.
    Offered,
    /// It is on.
    On,
    /// There is none.
    Unavailable,
}

/// Whether a password may be sent without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleartext {
    /// It may: the connection does not leave this machine.
    Allowed,
    /// It may not.
    Refused,
}

/// One connection's side of a protocol.
pub trait Session {
    /// What the session wants to know from the world (is this recipient known, store this mail, …).
    type Question;
    /// What the world says to that.
    type Answer;

    /// Takes bytes as they came from the peer, in any split. They are kept until [`Session::next`] works them off; the
    /// driver feeds more only after a [`Step::NeedInput`], so at most one read's worth is kept beyond the limits.
    fn input(&mut self, bytes: &[u8]);

    /// Takes bytes that had come before what was last put out was written: their sender cannot have read it.
    fn early_input(&mut self, bytes: &[u8]) {
        self.input(bytes);
    }

    /// What to do next. Called again after each step has been carried out.
    fn next(&mut self) -> Step<Self::Question>;

    /// Whether what [`Session::next`] does next may take a tenth of a second or longer: others should not wait for it.
    fn takes_long(&self) -> bool {
        false
    }

    /// The answer to the question last asked.
    fn answer(&mut self, answer: Self::Answer);

    /// The TLS handshake asked for by [`Step::StartTls`] is done. Bytes fed before it are forgotten: they came in the
    /// clear and must not count as sent under TLS (RFC 3207 section 4.2).
    fn tls_started(&mut self);

    /// Both directions are packed from now on. Bytes fed before are forgotten: they came too early.
    fn compressed(&mut self) {}

    /// Whether content comes next, of which there may be much: then as much is read at once as there is.
    fn takes_much(&self) -> bool {
        false
    }

    /// Whether the session, which waits for input, also wants to hear when there is news from the world. Then
    /// [`Session::news`] is called, as often as there is.
    fn wants_news(&self) -> bool {
        false
    }

    /// There is news: the session may have something to ask.
    fn news(&mut self) {}

    /// Whether the peer has said who it is, or does not have to. Until then it is given less time.
    fn is_established(&self) -> bool {
        true
    }

    /// The peer closed its side. Steps that are still due come out of [`Session::next`], then [`Step::Close`].
    fn end_of_input(&mut self);

    /// Ends the session from our side with the protocol's own words for it; afterwards [`Session::next`] gives the last
    /// output, then [`Step::Close`].
    fn farewell(&mut self, why: Farewell);
}
