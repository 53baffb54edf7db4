//! The listeners of a store node: in the clear with STARTTLS, and under TLS from the start.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use directory::Directory;
use runtime::driver::{Conversation, Terms, drive};
use runtime::listener::{self, Settings};
use runtime::tasks::Tasks;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use wire::pop3::{Cleartext, Limits, Pop3Session, Tls};

use crate::config::Config;
use crate::node::Node;
use crate::pop3::Maildrop;

/// How long a client may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long a client may take none of what we write.
const STALLED: Duration = Duration::from_secs(120);

/// Whether TLS begins with the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    InTheClear,
    UnderTls,
}

#[derive(Clone)]
struct Desk {
    node: Node,
    directory: Directory,
    terms: Terms,
    tls: TlsAcceptor,
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
        // A reader may stay as long as it likes.
        life: Duration::from_secs(30 * 86_400),
        tls: Some(tls.clone()),
        tasks: tasks.clone(),
    };
    let desk = Desk { node: node.clone(), directory: directory.clone(), terms, tls: tls.clone() };
    let rows = [("pop3", &config.pop3, Begin::InTheClear), ("pop3s", &config.pop3s, Begin::UnderTls)];
    for (name, addresses, begin) in rows {
        let settings = Settings {
            name,
            addresses: addresses.clone(),
            most: config.connections,
            most_per_address: config.per_address,
            busy: b"-ERR [SYS/TEMP] too many connections; try again later\r\n",
        };
        let sockets = listener::bind(&settings)?;
        let desk = desk.clone();
        let serve = move |stream, peer| desk.clone().pop3(stream, peer, begin);
        tasks.spawn_vital(name, listener::run(settings, sockets, tasks.clone(), serve));
    }
    Ok(())
}

impl Desk {
    async fn pop3(self, stream: TcpStream, peer: SocketAddr, begin: Begin) {
        let mut conversation = Conversation::Clear(stream);
        if begin == Begin::UnderTls
            && let Err(error) = conversation.start_tls(&self.tls, HANDSHAKE).await
        {
            return tracing::debug!(client = %peer, %error, "no TLS came about");
        }
        let tls = if begin == Begin::UnderTls { Tls::On } else { Tls::Offered };
        let cleartext = if peer.ip().to_canonical().is_loopback() { Cleartext::Allowed } else { Cleartext::Refused };
        let session = Pop3Session::new(Limits::default(), tls, cleartext);
        let mut maildrop = Maildrop::new(self.node, self.directory);
        if let Err(error) = drive(conversation, session, &mut maildrop, &self.terms, Bytes::new()).await {
            tracing::debug!(client = %peer, %error, "the connection broke off");
        }
    }
}
