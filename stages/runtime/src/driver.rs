//! Drives a protocol session over a socket: reads, writes, TLS, time limits, shutdown.
//!
//! The session says what is next; the backend answers its questions. A peer that sends nothing, or takes nothing, for
//! too long is told so in the protocol's words and dropped. At shutdown a connection that waits for its peer says
//! farewell; one that is working for it finishes that first.

mod line;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use wire::session::{Farewell, Session, Step};

use self::line::Line;
use crate::aside::aside;
use crate::at_once;
use crate::linger::linger;
use crate::tasks::Tasks;

/// Bytes read at once, if no content is waited for. An idle connection has no room set aside for them.
const READ: usize = 16 * 1024;

/// Output is written when this much has gathered, even if the session has more; and bytes at once, so that a slow
/// peer's progress through a large mail is seen.
const WRITE: usize = 64 * 1024;

/// How long a peer that never pauses is heard after the shutdown has begun. What it had sent by then is long read.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Answers a session's questions.
pub trait Backend<S: Session>: Send {
    /// The answer to one question.
    fn answer(&mut self, question: S::Question) -> impl Future<Output = S::Answer> + Send;

    /// Resolves when there may be something new for the session to ask about. Waited for as long as the session wants
    /// it.
    fn news(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Resolves when the peer may not stay logged in.
    fn over(&self) -> impl Future<Output = ()> + Send + 'static {
        std::future::pending()
    }

    /// Everything that was said so far has been sent: what was held for it can go.
    fn sent(&mut self) {}

    /// TLS has begun: protocol version and cipher, for the records.
    fn tls_started(&mut self, description: String);
}

/// The time limits of a connection, and what it needs for TLS.
#[derive(Clone)]
pub struct Terms {
    /// How long the peer may send nothing while we wait for it.
    pub idle: Duration,
    /// How long the peer may take none of what we write.
    pub stalled: Duration,
    /// Bytes a second that content which it sends, and large content which it takes, has to move at in all, once it has
    /// taken longer than the peer may stall; 0 if it may be as slow as it likes. Room is held for it all the while.
    pub slowest: u64,
    /// How long the peer may take to say who it is, a TLS handshake included, where it has to.
    pub login: Duration,
    /// How long the whole connection may last.
    pub life: Duration,
    /// For STARTTLS, if there is any.
    pub tls: Option<TlsAcceptor>,
    /// The shutdown.
    pub tasks: Tasks,
}

/// A socket, in the clear or under TLS.
pub enum Conversation {
    /// In the clear.
    Clear(TcpStream),
    /// Under TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// In between, or broken there.
    Gone,
}

impl Conversation {
    /// Performs the server's side of a TLS handshake.
    ///
    /// # Errors
    /// When the peer does not do its part within `limit`.
    pub async fn start_tls(&mut self, tls: &TlsAcceptor, limit: Duration) -> io::Result<String> {
        let Self::Clear(stream) = std::mem::replace(self, Self::Gone) else {
            return Err(io::Error::other("TLS has begun already"));
        };
        let accepted =
            tokio::time::timeout(limit, tls.accept(stream).into_fallible()).await.map_err(|_| timed_out())?;
        let stream = accepted.map_err(|(error, stream)| {
            // The peer may yet have to hear why.
            *self = Self::Clear(stream);
            error
        })?;
        let (_, session) = stream.get_ref();
        let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS").to_owned();
        let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("?");
        let description = format!("{version} {suite}");
        *self = Self::Tls(Box::new(stream));
        Ok(description)
    }

    /// Gives what is there already, at most so much, to `take`, and says how much it was; nothing if nothing is there.
    fn read_at_once(&mut self, most: usize, take: impl FnOnce(&[u8])) -> Option<io::Result<usize>> {
        match self {
            Self::Clear(stream) => at_once::read_at_once(stream, most, take),
            Self::Tls(stream) => at_once::read_at_once(stream, most, take),
            Self::Gone => Some(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Resolves when there is something to read, or when the peer is gone.
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Clear(stream) => stream.readable().await,
            Self::Tls(stream) => stream.get_ref().0.readable().await,
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    async fn write(&mut self, bytes: &[u8], stalled: Duration) -> io::Result<()> {
        for piece in bytes.chunks(WRITE) {
            tokio::time::timeout(stalled, self.write_piece(piece)).await.map_err(|_| timed_out())??;
        }
        Ok(())
    }

    async fn write_piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Clear(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    async fn close(&mut self) {
        // The peer may be gone already; there is nobody left to tell.
        let _ = match self {
            Self::Clear(stream) => stream.shutdown().await,
            Self::Tls(stream) => stream.shutdown().await,
            Self::Gone => Ok(()),
        };
    }

    /// Reads on behind the last word, for a bounded time: where no gate in front does so.
    pub async fn linger(&mut self, tasks: &Tasks) {
        match self {
            Self::Clear(stream) => linger(stream, tasks).await,
            Self::Tls(stream) => linger(stream.get_mut().0, tasks).await,
            Self::Gone => {}
        }
    }
}

/// Drives `session` until either side is done. `first` is what was read from the peer already (behind a PROXY header).
///
/// # Errors
/// Whatever the socket says when the peer breaks off, or a time limit that it ran into.
pub async fn drive<S: Session, B: Backend<S>>(
    socket: &mut Conversation,
    mut session: S,
    backend: &mut B,
    terms: &Terms,
    first: Bytes,
) -> io::Result<()> {
    let mut line = Line::new(socket);
    let mut output = BytesMut::new();
    let mut waits =
        Waits { began: Instant::now(), may_say_farewell: true, last_words: None, content: None, quiet_since: None };
    if !first.is_empty() {
        session.input(&first);
    }
    loop {
        let step = if session.takes_long() { aside(|| session.next()) } else { session.next() };
        match step {
            Step::Output(bytes) => gather(&mut line, &mut output, &bytes, terms).await?,
            Step::Ask(question) => {
                let answer = backend.answer(question).await;
                session.answer(answer);
            }
            Step::NeedInput => waits.wait(&mut line, &mut output, &mut session, backend, terms).await?,
            Step::StartTls => {
                flush(&mut line, &mut output, terms).await?;
                let tls = terms.tls.as_ref().ok_or_else(|| io::Error::other("TLS is not set up"))?;
                let description = line.socket.start_tls(tls, terms.idle.min(terms.login)).await?;
                session.tls_started();
                backend.tls_started(description);
            }
            Step::Compress => {
                flush(&mut line, &mut output, terms).await?;
                line.begin_packing();
                session.compressed();
            }
            Step::Close => {
                flush(&mut line, &mut output, terms).await?;
                tokio::time::timeout(terms.stalled, line.socket.close()).await.map_err(|_| timed_out())?;
                return Ok(());
            }
        }
    }
}

/// How a conversation has waited for its peer so far.
struct Waits {
    began: Instant,
    may_say_farewell: bool,
    last_words: Option<Instant>,
    /// How long content has been waited for, and how much has come. What our side takes to bear it does not count.
    content: Option<(Duration, u64)>,
    quiet_since: Option<Instant>,
}

impl Waits {
    /// Writes what is to be said, and waits until there is something to do.
    async fn wait<S: Session, B: Backend<S>>(
        &mut self,
        line: &mut Line<'_>,
        output: &mut BytesMut,
        session: &mut S,
        backend: &mut B,
        terms: &Terms,
    ) -> io::Result<()> {
        // Whoever sent this cannot have read what is only now written.
        if !output.is_empty()
            && let Some(Ok(count @ 1..)) = line.read_at_once(most_of(session), |bytes| session.early_input(bytes))
        {
            self.has_come(count);
            return Ok(());
        }
        flush(line, output, terms).await?;
        *output = BytesMut::new();
        line.rest();
        backend.sent();
        let most = if session.is_established() { terms.life } else { terms.login };
        let deadline = (self.began + most).min(*self.quiet_since.get_or_insert_with(Instant::now) + terms.idle);
        let deadline = self.content_until(session, terms).map_or(deadline, |until| until.min(deadline));
        let ear = Ear { deadline, may_say_farewell: self.may_say_farewell, last_words: &mut self.last_words };
        let listening = Instant::now();
        let heard = ear.listen(line, session, backend, terms).await?;
        self.has_waited(listening.elapsed());
        match heard {
            Heard::Bytes(count) => {
                self.quiet_since = None;
                self.has_come(count);
            }
            Heard::News => session.news(),
            Heard::End => session.end_of_input(),
            Heard::Farewell(why) => {
                self.may_say_farewell = false;
                session.farewell(why);
            }
        }
        Ok(())
    }

    /// Until when the next of content has to come; none if none is waited for, or it may come slowly.
    fn content_until(&mut self, session: &impl Session, terms: &Terms) -> Option<Instant> {
        if !session.takes_much() || terms.slowest == 0 {
            self.content = None;
            return None;
        }
        let (waited, bytes) = *self.content.get_or_insert_default();
        let most = terms.stalled + Duration::from_secs(bytes / terms.slowest);
        Some(Instant::now() + most.saturating_sub(waited))
    }

    fn has_waited(&mut self, span: Duration) {
        if let Some((waited, _)) = &mut self.content {
            *waited += span;
        }
    }

    fn has_come(&mut self, count: usize) {
        if let Some((_, bytes)) = &mut self.content {
            *bytes += count as u64;
        }
    }
}

/// What is small is gathered, to be sent together.
async fn gather(line: &mut Line<'_>, output: &mut BytesMut, bytes: &[u8], terms: &Terms) -> io::Result<()> {
    if output.len() + bytes.len() > WRITE {
        flush(line, output, terms).await?;
    }
    if bytes.len() > WRITE {
        let all = line.write(bytes, terms.stalled);
        let Some(seconds) = (bytes.len() as u64).checked_div(terms.slowest) else { return all.await };
        let most = terms.stalled + Duration::from_secs(seconds);
        return tokio::time::timeout(most, all).await.map_err(|_| timed_out())?;
    }
    output.extend_from_slice(bytes);
    Ok(())
}

enum Heard {
    Bytes(usize),
    News,
    End,
    Farewell(Farewell),
}

/// When the peer is not listened to any more.
struct Ear<'a> {
    deadline: Instant,
    may_say_farewell: bool,
    /// Until then it is heard in the shutdown, once that has begun.
    last_words: &'a mut Option<Instant>,
}

impl Ear<'_> {
    async fn listen<S: Session, B: Backend<S>>(
        self,
        line: &mut Line<'_>,
        session: &mut S,
        backend: &mut B,
        terms: &Terms,
    ) -> io::Result<Heard> {
        if !self.may_say_farewell {
            return Ok(Heard::End);
        }
        let now = Instant::now();
        // One that never pauses would meet the limits below only by luck.
        if terms.tasks.is_stopping() && now >= *self.last_words.get_or_insert(now + LAST_WORDS) {
            return Ok(Heard::Farewell(Farewell::ShuttingDown));
        }
        if now >= self.deadline {
            return Ok(Heard::Farewell(Farewell::TimedOut));
        }
        let mut over = pin!(backend.over());
        // So would what such a peer may not do any more.
        tokio::select! {
            biased;
            () = &mut over => return Ok(Heard::Farewell(Farewell::LoginOver)),
            () = std::future::ready(()) => {}
        }
        loop {
            // What the peer has sent already is heard before a shutdown is.
            if let Some(read) = line.read_at_once(most_of(session), |bytes| session.input(bytes)) {
                return Ok(match read? {
                    0 => Heard::End,
                    count => Heard::Bytes(count),
                });
            }
            tokio::select! {
                biased;
                ready = at_once::wait(line.socket.readable()) => ready?,
                () = terms.tasks.stopping() => return Ok(Heard::Farewell(Farewell::ShuttingDown)),
                () = tokio::time::sleep_until(self.deadline) => return Ok(Heard::Farewell(Farewell::TimedOut)),
                () = &mut over => return Ok(Heard::Farewell(Farewell::LoginOver)),
                () = backend.news(), if session.wants_news() => return Ok(Heard::News),
            }
        }
    }
}

/// How much is read for a session at once.
fn most_of(session: &impl Session) -> usize {
    if session.takes_much() { at_once::MOST } else { READ }
}

async fn flush(line: &mut Line<'_>, output: &mut BytesMut, terms: &Terms) -> io::Result<()> {
    if !output.is_empty() {
        line.write(output, terms.stalled).await?;
        output.clear();
    }
    Ok(())
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the peer took too long")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::*;

    /// Asks what to say to each byte; ends at `q`.
    #[derive(Default)]
    struct Echo {
        stranger: bool,
        /// Puts a mark before what came early.
        marks: bool,
        /// Wants news, and asks `n` for it.
        curious: bool,
        input: Vec<u8>,
        output: Vec<Bytes>,
        asked: bool,
        closing: bool,
        /// It packs behind `z`.
        packs: bool,
        /// All that comes is content.
        content: bool,
    }

    impl Session for Echo {
        type Question = u8;
        type Answer = Bytes;

        fn input(&mut self, bytes: &[u8]) {
            self.input.extend(bytes);
        }

        fn early_input(&mut self, bytes: &[u8]) {
            if self.marks {
                self.input.push(b'!');
            }
            self.input.extend(bytes);
        }

        fn next(&mut self) -> Step<u8> {
            if !self.output.is_empty() {
                return Step::Output(self.output.remove(0));
            }
            if self.closing {
                return Step::Close;
            }
            if !self.asked && std::mem::take(&mut self.packs) {
                return Step::Compress;
            }
            if self.asked || self.input.is_empty() {
                return Step::NeedInput;
            }
            let byte = self.input.remove(0);
            self.closing = byte == b'q';
            self.packs = byte == b'z';
            self.asked = true;
            Step::Ask(byte)
        }

        fn answer(&mut self, answer: Bytes) {
            self.asked = false;
            self.output.push(answer);
        }

        fn wants_news(&self) -> bool {
            self.curious
        }

        fn takes_much(&self) -> bool {
            self.content
        }

        fn news(&mut self) {
            self.input.push(b'n');
        }

        fn is_established(&self) -> bool {
            !self.stranger
        }

        fn tls_started(&mut self) {}

        fn end_of_input(&mut self) {
            self.closing = true;
        }

        fn farewell(&mut self, why: Farewell) {
            self.output.push(Bytes::from_static(match why {
                Farewell::TimedOut => b"late",
                Farewell::ShuttingDown => b"down",
                Farewell::LoginOver => b"over",
            }));
            self.closing = true;
        }
    }

    struct Upper;

    impl Backend<Echo> for Upper {
        async fn answer(&mut self, question: u8) -> Bytes {
            Bytes::from(vec![question.to_ascii_uppercase()])
        }

        fn tls_started(&mut self, _: String) {}
    }

    #[track_caller]
    fn terms(idle: u64) -> Terms {
        let idle = Duration::from_millis(idle);
        Terms {
            idle,
            stalled: Duration::from_secs(5),
            slowest: 0,
            login: idle,
            life: Duration::from_secs(60),
            tls: None,
            tasks: Tasks::default(),
        }
    }

    async fn talk(terms: Terms, say: &[u8], then: impl FnOnce(&Terms)) -> String {
        converse(Echo::default(), terms, say, then).await
    }

    async fn converse(session: Echo, terms: Terms, say: &[u8], then: impl FnOnce(&Terms)) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(say).await.unwrap();
        let theirs = terms.clone();
        let drive = async move {
            drive(&mut Conversation::Clear(server), session, &mut Upper, &theirs, Bytes::from_static(b"x")).await
        };
        let read = async {
            let mut heard = vec![0; 1 + say.len()];
            client.read_exact(&mut heard).await.unwrap();
            then(&terms);
            let mut rest = String::new();
            client.read_to_string(&mut rest).await.unwrap();
            String::from_utf8(heard).unwrap() + &rest
        };
        let (driven, heard) = tokio::join!(drive, read);
        driven.unwrap();
        heard
    }

    #[tokio::test]
    async fn a_peer_that_takes_a_large_answer_slowly_gets_all_of_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let large = Bytes::from(vec![b'm'; 24 << 20]);
        let stalled = Duration::from_millis(200);
        let write = async {
            let began = tokio::time::Instant::now();
            Conversation::Clear(server).write(&large, stalled).await.unwrap();
            began.elapsed()
        };
        let read = async {
            let mut buffer = vec![0; 1 << 20];
            let mut taken = 0;
            while taken < large.len() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                taken += client.read(&mut buffer).await.unwrap();
            }
        };
        let (took, ()) = tokio::join!(write, read);
        assert!(took > stalled, "the whole took {took:?}, which says nothing about a limit of {stalled:?}");
    }

    #[tokio::test]
    async fn what_was_read_before_comes_first() {
        assert_eq!(talk(terms(5_000), b"abq", |_| {}).await, "XABQ");
    }

    /// A client that sends more while it waits for its answer.
    #[tokio::test]
    async fn what_comes_before_the_answer_is_known_as_that() {
        struct Meddler(TcpStream);
        impl Backend<Echo> for Meddler {
            async fn answer(&mut self, question: u8) -> Bytes {
                if question == b'a' {
                    self.0.write_all(b"b").await.unwrap();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                if question == b'b' {
                    self.0.shutdown().await.unwrap();
                }
                Bytes::from(vec![question])
            }

            fn tls_started(&mut self, _: String) {}
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let mut meddler = Meddler(client);
        let first = Bytes::from_static(b"a");
        let mut server = Conversation::Clear(server);
        let session = Echo { marks: true, ..Echo::default() };
        drive(&mut server, session, &mut meddler, &terms(5_000), first).await.unwrap();
        let mut heard = String::new();
        meddler.0.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "a!b");
    }

    #[tokio::test]
    async fn a_silent_peer_is_told_so() {
        assert_eq!(talk(terms(50), b"ab", |_| {}).await, "XABlate");
    }

    #[tokio::test]
    async fn who_does_not_log_in_has_less_time() {
        let stranger = || Echo { stranger: true, ..Echo::default() };
        let terms = Terms { login: Duration::from_millis(50), ..terms(5_000) };
        assert_eq!(converse(stranger(), terms.clone(), b"ab", |_| {}).await, "XABlate");
        assert_eq!(converse(Echo::default(), terms, b"ab", |terms| terms.tasks.stop()).await, "XABdown");
    }

    #[tokio::test]
    async fn a_waiting_connection_hears_of_the_shutdown() {
        assert_eq!(talk(terms(5_000), b"ab", |terms| terms.tasks.stop()).await, "XABdown");
    }

    /// How a connection ends whose peer sends and sends; nothing, if it does not end. The peer has threads of its own,
    /// so that there is always something to be read.
    async fn flooded(terms: Terms, then: impl FnOnce(&Terms)) -> Option<io::Result<()>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut says = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut hears = says.try_clone().unwrap();
        let (server, _) = listener.accept().await.unwrap();
        std::thread::spawn(move || while io::Write::write_all(&mut says, &[b'a'; READ]).is_ok() {});
        std::thread::spawn(move || {
            let mut buffer = vec![0; READ];
            while io::Read::read(&mut hears, &mut buffer).is_ok_and(|count| count > 0) {}
        });
        then(&terms);
        let (session, mut backend, first) = (Echo::default(), Upper, Bytes::new());
        let mut server = Conversation::Clear(server);
        let driven = drive(&mut server, session, &mut backend, &terms, first);
        tokio::time::timeout(Duration::from_secs(10), driven).await.ok()
    }

    /// Waits for its peer and for the news, of which it asks each time.
    #[tokio::test]
    async fn who_wants_news_hears_of_it_while_its_peer_is_silent() {
        struct Tells(u8);
        impl Backend<Echo> for Tells {
            async fn answer(&mut self, question: u8) -> Bytes {
                Bytes::from(vec![question])
            }

            async fn news(&mut self) {
                match self.0 {
                    3 => std::future::pending().await,
                    _ => self.0 += 1,
                }
            }

            fn tls_started(&mut self, _: String) {}
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let terms = terms(5_000);
        let session = Echo { curious: true, ..Echo::default() };
        let mut backend = Tells(0);
        let mut server = Conversation::Clear(server);
        let drive = drive(&mut server, session, &mut backend, &terms, Bytes::new());
        let read = async {
            let mut heard = [0; 3];
            client.read_exact(&mut heard).await.unwrap();
            client.write_all(b"aq").await.unwrap();
            let mut rest = String::new();
            client.read_to_string(&mut rest).await.unwrap();
            assert_eq!((&heard, rest.as_str()), (b"nnn", "aq"));
        };
        let (driven, ()) = tokio::join!(drive, read);
        driven.unwrap();
    }

    /// News does not make up for a peer that is silent.
    #[tokio::test]
    async fn who_hears_much_and_says_nothing_is_timed_out() {
        struct Chatty;
        impl Backend<Echo> for Chatty {
            async fn answer(&mut self, _: u8) -> Bytes {
                Bytes::new()
            }

            async fn news(&mut self) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }

            fn tls_started(&mut self, _: String) {}
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let terms = terms(200);
        let session = Echo { curious: true, ..Echo::default() };
        drive(&mut Conversation::Clear(server), session, &mut Chatty, &terms, Bytes::new()).await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "late");
    }

    #[tokio::test]
    async fn after_its_word_both_sides_pack() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let terms = terms(5_000);
        let (session, mut backend) = (Echo::default(), Upper);
        let mut server = Conversation::Clear(server);
        let drive = drive(&mut server, session, &mut backend, &terms, Bytes::new());
        let talk = async {
            let mut client = Conversation::Clear(client);
            let mut line = Line::new(&mut client);
            line.write(b"az", terms.stalled).await.unwrap();
            let mut heard = Vec::new();
            for (say, want) in [("", "AZ"), ("b", "AZB"), ("cq", "AZBCQ")] {
                line.write(say.as_bytes(), terms.stalled).await.unwrap();
                while heard.len() < want.len() {
                    if line.read_at_once(READ, |bytes| heard.extend_from_slice(bytes)).is_none() {
                        line.socket.readable().await.unwrap();
                    }
                }
                assert_eq!(heard, want.as_bytes());
                if say.is_empty() {
                    line.begin_packing();
                }
                line.rest();
            }
        };
        let (driven, ()) = tokio::join!(drive, talk);
        driven.unwrap();
    }

    #[tokio::test]
    async fn who_never_pauses_meets_the_limits_too() {
        let terms = Terms { life: Duration::from_millis(200), ..terms(5_000) };
        assert!(flooded(terms.clone(), |_| {}).await.is_some(), "its life had no end");
        let terms = Terms { life: Duration::from_secs(60), ..terms };
        assert!(flooded(terms, |terms| terms.tasks.stop()).await.is_some(), "it did not hear of the shutdown");
    }

    /// Lets its peer stay until it is told otherwise.
    struct Host(tokio::sync::watch::Receiver<bool>);

    impl Backend<Echo> for Host {
        async fn answer(&mut self, question: u8) -> Bytes {
            Bytes::from(vec![question.to_ascii_uppercase()])
        }

        fn over(&self) -> impl Future<Output = ()> + Send + 'static {
            let mut over = self.0.clone();
            async move { over.wait_for(|over| *over).await.map(drop).unwrap() }
        }

        fn tls_started(&mut self, _: String) {}
    }

    #[tokio::test]
    async fn who_may_not_stay_hears_so() {
        for goes_on in [false, true] {
            let (mut client, server) = both_ends().await;
            let (tell, told) = tokio::sync::watch::channel(false);
            let serve = async {
                let (mut server, terms) = (Conversation::Clear(server), terms(30_000));
                drive(&mut server, Echo::default(), &mut Host(told), &terms, Bytes::from_static(b"x")).await.unwrap();
                server.linger(&terms.tasks).await;
            };
            let talk = async {
                let mut heard = [0];
                client.read_exact(&mut heard).await.unwrap();
                tell.send(true).unwrap();
                if goes_on {
                    return flood(client, b'a').await;
                }
                let mut rest = Vec::new();
                client.read_to_end(&mut rest).await.unwrap();
                rest
            };
            let ((), heard) = tokio::join!(serve, talk);
            assert!(heard.ends_with(b"over"));
        }
    }

    /// What a client hears that sends and sends, and waits for nothing.
    async fn flood(client: impl AsyncRead + AsyncWrite, say: u8) -> Vec<u8> {
        let (mut read, mut write) = tokio::io::split(client);
        let mut heard = Vec::new();
        let flood = async { while write.write_all(&[say; 4096]).await.is_ok() {} };
        tokio::select! {
            () = flood => {}
            () = async { read.read_to_end(&mut heard).await.map(drop).unwrap_or_default() } => {}
        }
        heard
    }

    fn tls() -> (TlsAcceptor, TlsConnector) {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::tls::Config { certificate: folder.path().join("c"), key: folder.path().join("k") };
        let acceptor = crate::tls::acceptor(&config, &["localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&config.certificate).unwrap()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let client = client.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        (acceptor, TlsConnector::from(Arc::new(client.with_no_client_auth())))
    }

    async fn both_ends() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    /// Ends a conversation behind `q`, with a client that says nothing else.
    async fn last_word(mut server: Conversation, client: impl AsyncRead + AsyncWrite) {
        let terms = terms(5_000);
        let serve = async {
            drive(&mut server, Echo::default(), &mut Upper, &terms, Bytes::new()).await.unwrap();
            server.linger(&terms.tasks).await;
            drop(server);
        };
        let ((), heard) = tokio::join!(serve, flood(client, b'q'));
        assert_eq!(heard, b"Q");
    }

    #[tokio::test]
    async fn a_last_word_reaches_a_client_that_goes_on_sending() {
        let (client, server) = both_ends().await;
        last_word(Conversation::Clear(server), client).await;
    }

    #[tokio::test]
    async fn a_last_word_reaches_it_under_tls() {
        let (client, server) = both_ends().await;
        let (acceptor, connector) = tls();
        let mut server = Conversation::Clear(server);
        let name = "localhost".try_into().unwrap();
        let (served, client) =
            tokio::join!(server.start_tls(&acceptor, Duration::from_secs(5)), connector.connect(name, client));
        served.unwrap();
        last_word(server, client.unwrap()).await;
    }

    /// Who does not speak TLS hears that in an alert (RFC 8446 section 6).
    #[tokio::test]
    async fn a_handshake_that_fails_has_a_last_word_too() {
        let (client, server) = both_ends().await;
        let mut server = Conversation::Clear(server);
        let serve = async {
            server.start_tls(&tls().0, Duration::from_secs(5)).await.unwrap_err();
            server.linger(&Tasks::default()).await;
            drop(server);
        };
        let ((), heard) = tokio::join!(serve, flood(client, b'q'));
        assert_eq!(heard.first(), Some(&21));
    }

    /// A byte now and then kept the room of what was announced for as long as the peer liked.
    #[tokio::test(start_paused = true)]
    async fn content_may_not_come_too_slowly() {
        let slow = Terms { stalled: Duration::from_secs(60), slowest: 1000, ..terms(1_800_000) };
        let mut waits =
            Waits { began: Instant::now(), may_say_farewell: true, last_words: None, content: None, quiet_since: None };
        let until = |waits: &mut Waits, content: bool| {
            let session = Echo { content, ..Echo::default() };
            waits.content_until(&session, &slow).map(|until| until.duration_since(Instant::now()).as_secs())
        };
        assert_eq!(until(&mut waits, false), None);
        assert_eq!(until(&mut waits, true), Some(60));
        waits.has_waited(Duration::from_secs(50));
        waits.has_come(1);
        assert_eq!(until(&mut waits, true), Some(10), "a byte is not enough");
        // While we were busy with it, it was not waited for.
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(until(&mut waits, true), Some(10));
        waits.has_come(100_000);
        assert_eq!(until(&mut waits, true), Some(110));
        assert_eq!(until(&mut waits, false), None, "it is there");
        assert_eq!(until(&mut waits, true), Some(60), "the next has its own time");
    }

    /// One that took a piece now and then held its text for half a day.
    #[tokio::test(start_paused = true)]
    async fn large_content_may_not_be_taken_too_slowly() {
        // A small buffer, so that each piece that is taken is heard of, and the peer never stalls.
        let listener = tokio::net::TcpSocket::new_v4().unwrap();
        listener.set_send_buffer_size(64 * 1024).unwrap();
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(1).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut socket = Conversation::Clear(listener.accept().await.unwrap().0);
        let slow = Terms { stalled: Duration::from_secs(60), slowest: 1 << 20, ..terms(1_800_000) };
        let large = vec![b'x'; 64 << 20];
        let (mut line, mut output) = (Line::new(&mut socket), BytesMut::new());
        let begin = Instant::now();
        let take = async {
            let mut piece = vec![0; 256 * 1024];
            while client.read_exact(&mut piece).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(30)).await;
            }
        };
        let ended = tokio::select! {
            ended = gather(&mut line, &mut output, &large, &slow) => ended,
            () = take => panic!("nothing came any more"),
        };
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        // 60 seconds, and 64 for as many MiB.
        assert_eq!(begin.elapsed().as_secs(), 124);
    }
}
