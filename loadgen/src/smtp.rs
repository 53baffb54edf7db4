//! One connection to an SMTP server, as an MTA makes it: EHLO, STARTTLS if wanted, pipelining where it is offered.
//!
//! Whatever breaks off before a final word is [`Trouble`]: the mail comes again, because nothing is known of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::either::Either;
use wire::smtp::client::take_reply;

/// A body that trickles comes in pieces, so many a second.
const PIECES: u32 = 10;

/// Where mail goes, and how.
#[derive(Clone)]
pub(crate) struct Target {
    /// The servers, in turn.
    pub(crate) servers: Vec<SocketAddr>,
    /// TLS after STARTTLS; any certificate will do.
    pub(crate) tls: Option<TlsConnector>,
    /// A server may take so long to answer.
    pub(crate) patience: Duration,
    /// Bytes a second of a body that trickles.
    pub(crate) trickle: u64,
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Its code.
    pub(crate) code: u16,
    /// Its last line.
    pub(crate) text: String,
}

/// What a reply means to an MTA (RFC 5321 section 4.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// Done, as it told.
    Kept,
    /// Come again.
    Later(String),
    /// Never.
    Refused(String),
}

/// What ends a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It broke off, or nothing came for too long.
    Broken(String),
    /// The server said so.
    Said(Reply),
}

impl Reply {
    /// What it means.
    pub(crate) fn word(&self) -> Word {
        let told = format!("{} {}", self.code, self.text);
        match self.code {
            200..=299 => Word::Kept,
            500..=599 => Word::Refused(told),
            // A reply that fits nothing is no reason to give a mail up.
            _ => Word::Later(told),
        }
    }
}

impl Trouble {
    /// What it means for every recipient of a mail.
    pub(crate) fn word(&self) -> Word {
        match self {
            Self::Broken(why) => Word::Later(why.clone()),
            // A greeting or a HELO cannot keep a mail.
            Self::Said(reply) if reply.code < 400 => Word::Later(format!("{} {}", reply.code, reply.text)),
            Self::Said(reply) => reply.word(),
        }
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error.kind().to_string())
    }
}

/// A connection on which mails can be sent.
pub(crate) struct Connection {
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    input: BytesMut,
    pipelining: bool,
    patience: Duration,
    trickle: u64,
    /// Whether the server has closed it, or taken leave.
    is_closed: bool,
    /// Whether it has answered anything of the mail in hand.
    is_begun: bool,
}

impl Connection {
    /// Connects from `source`, and gets to the point where mail can be sent. `turn` says which server is next.
    ///
    /// # Errors
    /// What came in between.
    pub(crate) async fn open(target: &Target, source: Option<IpAddr>, turn: usize) -> Result<Self, Trouble> {
        let server = target.servers[turn % target.servers.len()];
        let stream = tokio::time::timeout(target.patience, connect(server, source)).await;
        let stream = stream.map_err(|_| Trouble::Broken("no connection in time".into()))??;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream: Either::Left(stream),
            input: BytesMut::with_capacity(4096),
            pipelining: false,
            patience: target.patience,
            trickle: target.trickle,
            is_closed: false,
            is_begun: false,
        };
        connection.expect(220).await?;
        connection.hello().await?;
        if let Some(connector) = &target.tls {
            connection.write(b"STARTTLS\r\n").await?;
            connection.expect(220).await?;
            connection = connection.secure(connector, server).await?;
            connection.hello().await?;
        }
        Ok(connection)
    }

    async fn secure(mut self, connector: &TlsConnector, server: SocketAddr) -> Result<Self, Trouble> {
        let Either::Left(stream) = self.stream else { return Err(Trouble::Broken("TLS twice".into())) };
        let name = ServerName::IpAddress(server.ip().into());
        let stream = tokio::time::timeout(self.patience, connector.connect(name, stream)).await;
        let stream = stream.map_err(|_| Trouble::Broken("no TLS in time".into()))??;
        self.stream = Either::Right(Box::new(stream));
        self.input.clear();
        Ok(self)
    }

    async fn hello(&mut self) -> Result<(), Trouble> {
        self.write(b"EHLO loadgen.elsewhere.example\r\n").await?;
        let (code, lines) = self.lines().await?;
        if code != 250 {
            return Err(Trouble::Said(Reply { code, text: lines.last().cloned().unwrap_or_default() }));
        }
        self.pipelining = lines.iter().any(|line| line.eq_ignore_ascii_case("PIPELINING"));
        Ok(())
    }

    /// Sends one mail, its body stuffed and ended. Says what became of it for each recipient, in their order.
    ///
    /// # Errors
    /// When the connection is of no more use, and nothing is known of the mail.
    pub(crate) async fn send(
        &mut self,
        from: &str,
        to: &[&str],
        body: &[u8],
        slow: bool,
    ) -> Result<Vec<Word>, Trouble> {
        self.is_begun = false;
        let mut commands = vec![format!("MAIL FROM:<{from}>\r\n")];
        commands.extend(to.iter().map(|to| format!("RCPT TO:<{to}>\r\n")));
        commands.push("DATA\r\n".to_owned());
        let replies = self.converse(&commands).await?;
        let (mail, data) = (&replies[0], &replies[replies.len() - 1]);
        if mail.code >= 400 {
            return Ok(vec![mail.word(); to.len()]);
        }
        let mut words: Vec<Word> = replies[1..=to.len()].iter().map(Reply::word).collect();
        let last = if data.code == 354 {
            self.body(if words.contains(&Word::Kept) { body } else { b".\r\n" }, slow).await?;
            self.reply().await?
        } else if data.code >= 400 {
            data.clone()
        } else {
            // Nothing was sent that could have been taken.
            return Err(Trouble::Broken(format!("no reply to DATA: {} {}", data.code, data.text)));
        };
        let last = last.word();
        words.iter_mut().filter(|word| **word == Word::Kept).for_each(|word| *word = last.clone());
        Ok(words)
    }

    /// Says all commands at once where that is offered, else one by one. Without pipelining, what follows a command
    /// that failed is not said, and has its reply.
    async fn converse(&mut self, commands: &[String]) -> Result<Vec<Reply>, Trouble> {
        let mut replies: Vec<Reply> = Vec::with_capacity(commands.len());
        if self.pipelining {
            self.write(commands.concat().as_bytes()).await?;
            for _ in commands {
                replies.push(self.reply().await?);
            }
            return Ok(replies);
        }
        for (index, command) in commands.iter().enumerate() {
            let is_data = index + 1 == commands.len();
            let failed = if is_data { replies[1..].iter().all(is_no) } else { replies.first().is_some_and(is_no) };
            if failed {
                replies.push(replies[replies.len() - 1].clone());
                continue;
            }
            self.write(command.as_bytes()).await?;
            replies.push(self.reply().await?);
        }
        Ok(replies)
    }

    async fn body(&mut self, body: &[u8], slow: bool) -> Result<(), Trouble> {
        if !slow {
            return self.write(body).await;
        }
        let piece = usize::try_from(self.trickle / u64::from(PIECES)).unwrap_or(usize::MAX).max(1);
        for piece in body.chunks(piece) {
            self.write(piece).await?;
            tokio::time::sleep(Duration::from_secs(1) / PIECES).await;
        }
        Ok(())
    }

    /// Whether it had ended before the mail in hand was begun, of which the server knows nothing then.
    pub(crate) fn was_over(&self) -> bool {
        self.is_closed && !self.is_begun
    }

    /// Takes leave. What the server answers does not matter any more.
    pub(crate) async fn quit(mut self) {
        if self.write(b"QUIT\r\n").await.is_ok() {
            let _ = self.reply().await;
        }
    }

    async fn expect(&mut self, code: u16) -> Result<(), Trouble> {
        let reply = self.reply().await?;
        if reply.code == code { Ok(()) } else { Err(Trouble::Said(reply)) }
    }

    /// The next reply. The server's farewell (RFC 5321 section 3.8) is the end of the connection, whatever was asked.
    async fn reply(&mut self) -> Result<Reply, Trouble> {
        let (code, mut lines) = self.lines().await?;
        let reply = Reply { code, text: lines.pop().unwrap_or_default() };
        self.is_closed |= code == 421;
        self.is_begun |= code != 421;
        if code == 421 { Err(Trouble::Said(reply)) } else { Ok(reply) }
    }

    async fn lines(&mut self) -> Result<(u16, Vec<String>), Trouble> {
        loop {
            let taken = take_reply(&mut self.input).map_err(|line| Trouble::Broken(format!("no SMTP: {line}")))?;
            if let Some(reply) = taken {
                return Ok(reply);
            }
            let read = tokio::time::timeout(self.patience, self.stream.read_buf(&mut self.input)).await;
            let read = read.map_err(|_| Trouble::Broken("no reply in time".into()))?;
            self.is_closed |= !matches!(read, Ok(1..));
            if read? == 0 {
                return Err(Trouble::Broken("the connection was closed".into()));
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let written = tokio::time::timeout(self.patience, write).await;
        let written = written.map_err(|_| Trouble::Broken("not taken in time".into()))?;
        self.is_closed |= written.is_err();
        Ok(written?)
    }
}

fn is_no(reply: &Reply) -> bool {
    reply.code >= 400
}

async fn connect(server: SocketAddr, source: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(server).await
}

/// TLS that takes any certificate: a test chain has one of its own making.
///
/// # Errors
/// None with the provider that is built in.
pub(crate) fn any_certificate() -> anyhow::Result<TlsConnector> {
    use tokio_rustls::rustls::ClientConfig;
    use tokio_rustls::rustls::crypto::ring::default_provider;
    let provider = Arc::new(default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let trusting = Arc::new(trusting::Trusting(provider));
    let config = config.dangerous().with_custom_certificate_verifier(trusting).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

mod trusting {
    //! A verifier that takes any certificate, and still wants the handshake to be signed by its key.

    use std::sync::Arc;

    use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use tokio_rustls::rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub(super) struct Trusting(pub(super) Arc<CryptoProvider>);

    impl ServerCertVerifier for Trusting {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_replies_mean() {
        let reply = |code| Reply { code, text: "t".into() };
        for (code, want) in [
            (250, Word::Kept),
            (354, Word::Later("354 t".into())),
            (421, Word::Later("421 t".into())),
            (452, Word::Later("452 t".into())),
            (550, Word::Refused("550 t".into())),
            (554, Word::Refused("554 t".into())),
        ] {
            assert_eq!(reply(code).word(), want);
        }
        assert_eq!(Trouble::Said(reply(250)).word(), Word::Later("250 t".into()));
        assert_eq!(Trouble::Said(reply(554)).word(), Word::Refused("554 t".into()));
        assert_eq!(Trouble::Broken("gone".into()).word(), Word::Later("gone".into()));
    }

    /// A server that says this on one connection, a line for each command line, whatever that is.
    async fn against(says: &'static str, to: &[&str]) -> Result<Vec<Word>, Trouble> {
        use tokio::io::{AsyncBufReadExt as _, BufReader};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let servers = vec![listener.local_addr().unwrap()];
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            for said in says.split('|') {
                stream.get_mut().write_all(format!("{}\r\n", said.replace('/', "\r\n")).as_bytes()).await.unwrap();
                line.clear();
                if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                    return;
                }
            }
        };
        let target = Target { servers, tls: None, patience: Duration::from_secs(5), trickle: 1000 };
        let send = async {
            let mut connection = Connection::open(&target, None, 0).await?;
            connection.send("s@x", to, b".\r\n", false).await
        };
        let (sent, ()) = tokio::join!(send, serve);
        sent
    }

    #[tokio::test]
    async fn dialogues() {
        let (later, never) = (|text: &str| Word::Later(text.into()), |text: &str| Word::Refused(text.into()));
        for (says, want) in [
            ("220 a|250 b|250 m|250 r|250 r|354 d|250 kept", Ok(vec![Word::Kept, Word::Kept])),
            ("220 a|250-b/250 PIPELINING|250 m|250 r|250 r|354 d|250 kept", Ok(vec![Word::Kept, Word::Kept])),
            ("220 a|250 b|250 m|550 no|250 r|354 d|250 kept", Ok(vec![never("550 no"), Word::Kept])),
            ("220 a|250 b|250 m|250 r|452 full|354 d|451 wait", Ok(vec![later("451 wait"), later("452 full")])),
            ("220 a|250 b|250 m|550 no|451 wait", Ok(vec![never("550 no"), later("451 wait")])),
            ("220 a|250-b/250 PIPELINING|250 m|550 no|550 no|554 none", Ok(vec![never("550 no"); 2])),
            ("220 a|250-b/250 PIPELINING|250 m|550 no|550 no|354 d|554 none", Ok(vec![never("550 no"); 2])),
            ("220 a|250 b|250 m|250 r|250 r|250 kept", Err(Trouble::Broken("no reply to DATA: 250 kept".into()))),
            ("220 a|250 b|451 wait", Ok(vec![later("451 wait"); 2])),
            ("554 no", Err(Trouble::Said(Reply { code: 554, text: "no".into() }))),
            ("220 a|250 b|421 bye", Err(Trouble::Said(Reply { code: 421, text: "bye".into() }))),
            ("220 a|250 b|250 m|250 r", Err(Trouble::Broken("the connection was closed".into()))),
        ] {
            assert_eq!(against(says, &["a@x", "b@x"]).await, want, "{says}");
        }
    }
}
