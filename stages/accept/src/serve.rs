//! One connection: the PROXY header of the gate, or what a gate of this process says itself, then the dialogue, whose
//! questions are answered here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use directory::{Directory, Receives};
use proto::GateFacts;
use runtime::driver::{Backend, Conversation, Terms, drive};
use runtime::handover::Handed;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use wire::proxy::Header;
use wire::session::Tls;
use wire::smtp::{Answer, Question, Reply, SmtpSession};

use crate::arrival::Peer;
use crate::budget::{Budget, Share};
use crate::intake::{Intake, Told};

/// The gate sends its header at once.
const HEADER_WAIT: Duration = Duration::from_secs(5);

/// What every connection shares.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) intake: Arc<Intake>,
    pub(crate) directory: Directory,
    pub(crate) budget: Budget,
    pub(crate) terms: Terms,
}

struct Clerk {
    desk: Desk,
    peer: Peer,
    share: Option<Share>,
    /// The size that the message under way may come to.
    most: u64,
    /// The mails of the last final reply, until its sender shows that it read it.
    told: Vec<Told>,
}

impl Desk {
    /// Serves one connection of a gate to its end.
    pub(crate) async fn serve(self, mut stream: TcpStream, from: SocketAddr) {
        if !self.intake.config.gates.contains(&from.ip().to_canonical()) {
            tracing::warn!(%from, "not a gate; see stages.accept.gates");
            return;
        }
        let read = tokio::time::timeout(HEADER_WAIT, read_header(&mut stream)).await;
        let (header, rest) = match read {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => return tracing::warn!(%from, error = format!("{error:#}"), "no PROXY header"),
            Err(_) => return tracing::warn!(%from, "no PROXY header came"),
        };
        // A connection of the gate's own, without a client: a health check. It is answered like one from the gate
        // itself.
        let address = header.addresses.map_or(from, |(client, _)| client);
        let gate = GateFacts::decode(&header.facts).unwrap_or_else(|error| {
            tracing::warn!(%from, %error, "the gate's facts cannot be read");
            GateFacts::default()
        });
        self.talk(&mut Conversation::Clear(stream), address, gate, rest).await;
    }

    /// Serves a client that a gate of this process has handed over. Accept has the last word, and sees to it that it is
    /// heard.
    pub(crate) async fn take_over(mut self, handed: Handed) {
        let tasks = self.terms.tasks.clone();
        self.terms.idle = self.terms.idle.min(handed.idle);
        self.terms.stalled = self.terms.stalled.min(handed.idle);
        let mut client = Conversation::Clear(handed.client);
        self.talk(&mut client, handed.address, handed.facts, Bytes::new()).await;
        client.linger(&tasks).await;
    }

    async fn talk(self, client: &mut Conversation, address: SocketAddr, gate: GateFacts, first: Bytes) {
        let tls = if self.terms.tls.is_some() { Tls::Offered } else { Tls::Unavailable };
        let session = SmtpSession::new(self.intake.hostname.clone(), self.intake.config.limits.clone(), tls);
        let terms = self.terms.clone();
        let peer = Peer { address, tls: String::new(), gate };
        let mut clerk = Clerk { desk: self, peer, share: None, most: 0, told: Vec::new() };
        if let Err(error) = drive(client, session, &mut clerk, &terms, first).await {
            tracing::debug!(client = %address, %error, "the connection broke off");
        }
    }
}

async fn read_header(stream: &mut TcpStream) -> anyhow::Result<(Header, Bytes)> {
    let mut bytes = BytesMut::with_capacity(512);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            anyhow::bail!("the connection ended");
        }
        if let Some((header, used)) = Header::decode(&bytes)? {
            return Ok((header, bytes.split_off(used).freeze()));
        }
    }
}

impl Backend<SmtpSession> for Clerk {
    async fn answer(&mut self, question: Question) -> Answer {
        match question {
            Question::Sender(_) => match self.desk.intake.journal.room() {
                Ok(()) => Answer::Accept,
                Err(error) => {
                    tracing::warn!(%error, "senders are told to come again");
                    Answer::Reply(Reply::no_room())
                }
            },
            Question::Recipient(recipient) => match self.desk.directory.receives(recipient.path.as_str()).await {
                Ok(Receives::Yes) => Answer::Accept,
                Ok(Receives::Unknown) => Answer::Reply(Reply::unknown_recipient()),
                Ok(Receives::Suspended) => Answer::Reply(Reply::suspended_recipient()),
                Ok(Receives::NotLocal) => Answer::Reply(Reply::no_relay()),
                Err(unsure) => {
                    tracing::warn!(%unsure, "a recipient cannot be checked");
                    Answer::Reply(Reply::recipient_unsure())
                }
            },
            Question::Data { declared } => {
                self.share = self.desk.budget.take(declared);
                self.most = declared.unwrap_or(self.desk.intake.config.limits.message);
                match &self.share {
                    Some(share) => Answer::Reserve(share.bytes()),
                    None => Answer::Reply(Reply::no_room()),
                }
            }
            Question::Grow { total } => {
                let grown = self.share.take().and_then(|share| self.desk.budget.grow(share, total, self.most));
                self.share = grown;
                self.share
                    .as_ref()
                    .map_or_else(|| Answer::Reply(Reply::no_room()), |share| Answer::Reserve(share.bytes()))
            }
            Question::Message(message) => {
                let intake = Arc::clone(&self.desk.intake);
                let (reply, told) = intake.take(*message, &self.peer, self.share.take()).await;
                self.told = told;
                Answer::Reply(reply)
            }
            Question::WentOn => {
                for told in std::mem::take(&mut self.told) {
                    self.desk.intake.went_on(told).await;
                }
                Answer::Noted
            }
            Question::Abandoned => {
                self.share = None;
                Answer::Noted
            }
        }
    }

    fn tls_started(&mut self, description: String) {
        self.peer.tls = description;
    }
}
