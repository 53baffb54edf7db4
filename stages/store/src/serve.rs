//! The listeners of a store node: in the clear with STARTTLS, and under TLS from the start.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use directory::Directory;
use runtime::driver::{Conversation, Terms, drive};
use runtime::listener::{self, Room, Settings};
use runtime::tasks::Tasks;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use wire::session::{Cleartext, Tls};
use wire::{imap, pop3};

use crate::config::Config;
use crate::imap::Reading;
use crate::indexing;
use crate::logins::Logins;
use crate::node::Node;
use crate::pop3::Maildrop;
use crate::texts::Texts;
use crate::{rewrite, syncs};

/// How long a client may take none of what we write.
const STALLED: Duration = Duration::from_secs(120);
/// Bytes a second that a message which a client brings in or takes moves at least, in all: a third of what a telephone
/// modem did. One of 25 MiB may so hold its room for three and a half hours.
const SLOWEST: u64 = 2048;

/// Whether TLS begins with the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    InTheClear,
    UnderTls,
}

#[derive(Clone)]
struct Desk {
    node: Node,
    logins: Logins,
    texts: Texts,
    terms: Terms,
    tls: TlsAcceptor,
    limits: imap::Limits,
}

/// Listens and serves until the shutdown.
///
/// # Errors
/// When an address cannot be had.
pub fn serve(
    config: &Config,
    node: &Node,
    directory: &Directory,
    tls: &TlsAcceptor,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let terms = Terms {
        idle: config.idle,
        stalled: STALLED,
        slowest: SLOWEST,
        login: config.logins.within,
        // A reader may stay as long as it likes.
        life: Duration::from_secs(30 * 86_400),
        tls: Some(tls.clone()),
        tasks: tasks.clone(),
    };
    let logins = Logins::new(directory.clone(), node.name().to_owned(), config.logins);
    tasks.spawn_vital("logins", logins.clone().watch(tasks.clone()));
    let message = u32::try_from(config.message).unwrap_or(u32::MAX);
    let limits = imap::Limits { message, ..imap::Limits::default() };
    let desk = Desk { node: node.clone(), logins, texts: Texts::new(config.texts), terms, tls: tls.clone(), limits };
    let room = Room::new(config.connections, config.per_address);
    tasks.spawn_vital("shards", node.clone().watch(tasks.clone()));
    tasks.spawn("packs", rewrite::run(node.clone(), config.rewrite_below, tasks.clone()));
    tasks.spawn("syncs", syncs::run(node.clone(), tasks.clone()));
    tasks.spawn("text indexes", indexing::run(node.clone(), config.indexing, tasks.clone()));
    let begin = [Begin::InTheClear, Begin::UnderTls];
    for ((name, addresses), begin) in
        [("pop3", &config.listen.pop3), ("pop3s", &config.listen.pop3s)].into_iter().zip(begin)
    {
        let busy = b"-ERR [SYS/TEMP] too many connections; try again later\r\n";
        let (settings, desk) = (settings(&room, name, addresses, busy), desk.clone());
        let sockets = listener::bind(&settings)?;
        let serve = move |stream, peer| desk.clone().pop3(stream, peer, begin);
        tasks.spawn_vital(name, listener::run(settings, sockets, tasks.clone(), serve));
    }
    for ((name, addresses), begin) in
        [("imap", &config.listen.imap), ("imaps", &config.listen.imaps)].into_iter().zip(begin)
    {
        let busy = b"* BYE [UNAVAILABLE] too many connections; try again later\r\n";
        let (settings, desk) = (settings(&room, name, addresses, busy), desk.clone());
        let sockets = listener::bind(&settings)?;
        let serve = move |stream, peer| desk.clone().imap(stream, peer, begin);
        tasks.spawn_vital(name, listener::run(settings, sockets, tasks.clone(), serve));
    }
    Ok(())
}

fn settings(room: &Room, name: &'static str, addresses: &[SocketAddr], busy: &'static [u8]) -> Settings {
    Settings { name, addresses: addresses.to_vec(), room: room.clone(), busy }
}

impl Desk {
    /// The conversation, under TLS if it begins so, and what may be said in it; none when no TLS comes about.
    async fn begin(&self, stream: TcpStream, peer: SocketAddr, begin: Begin) -> Option<(Conversation, Tls, Cleartext)> {
        let mut conversation = Conversation::Clear(stream);
        if begin == Begin::UnderTls
            && let Err(error) = conversation.start_tls(&self.tls, self.terms.login).await
        {
            tracing::debug!(client = %peer, %error, "no TLS came about");
            return None;
        }
        let tls = if begin == Begin::UnderTls { Tls::On } else { Tls::Offered };
        let cleartext = if is_local(peer) { Cleartext::Allowed } else { Cleartext::Refused };
        Some((conversation, tls, cleartext))
    }

    async fn pop3(self, stream: TcpStream, peer: SocketAddr, begin: Begin) {
        let Some((mut conversation, tls, cleartext)) = self.begin(stream, peer, begin).await else { return };
        let session = pop3::Pop3Session::new(pop3::Limits::default(), tls, cleartext);
        let mut maildrop = Maildrop::new(self.node, self.logins, self.texts, peer.ip());
        told(peer, drive(&mut conversation, session, &mut maildrop, &self.terms, Bytes::new()).await);
    }

    async fn imap(self, stream: TcpStream, peer: SocketAddr, begin: Begin) {
        let Some((mut conversation, tls, cleartext)) = self.begin(stream, peer, begin).await else { return };
        let session = imap::ImapSession::new(self.limits, tls, cleartext);
        let mut reading = Reading::new(self.node, self.logins, self.texts, peer.ip());
        told(peer, drive(&mut conversation, session, &mut reading, &self.terms, Bytes::new()).await);
    }
}

fn is_local(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
}

fn told(peer: SocketAddr, ended: std::io::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(client = %peer, %error, "the connection broke off");
    }
}
