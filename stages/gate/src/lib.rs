//! The front line: DNS lists, asked before any mail is looked at.
//!
//! A client that is listed is refused with the list's name and text; every other connection is passed through to one of
//! the accept nodes, behind a PROXY header with what was found out. The lists fail open: one that does not answer
//! counts as unknown, at once when that goes on. When no accept node can be reached, the client is told to come again.
//!
//! An accept stage in the same process is given the client itself, with what the header would say: a connection between
//! the two would only cost. Outside nobody sees a difference, since every limit and every last word holds as it does
//! there.

pub mod config;
pub mod decide;
mod lists;
mod pass;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use proto::GateFacts;
use runtime::dns;
use runtime::handover::Handover;
use runtime::listener::{self, Room, Settings};
use runtime::tasks::Tasks;
use tokio::net::TcpStream;

use config::Config;
use decide::{Advice, decide};
use lists::Lists;

/// The gate.
pub struct Gate {
    config: Config,
    lists: Lists,
    turn: AtomicUsize,
    /// The accept stage of this process, if it has one.
    here: Option<Handover>,
    tasks: Tasks,
}

/// Listens and serves until the shutdown.
///
/// # Errors
/// When an address cannot be had, or the resolver cannot be set up.
pub fn start(config: Config, here: Option<Handover>, tasks: Tasks) -> anyhow::Result<()> {
    let settings = Settings {
        name: "gate",
        addresses: config.listen.clone(),
        room: Room::new(config.connections, config.per_address),
        busy: b"421 4.7.0 Too many connections; try again later\r\n",
    };
    let sockets = listener::bind(&settings)?;
    let lists = Lists::new(&config)?;
    let gate = Arc::new(Gate { config, lists, turn: AtomicUsize::new(0), here, tasks: tasks.clone() });
    let serve = move |stream, peer| {
        let gate = Arc::clone(&gate);
        async move { gate.serve(stream, peer).await }
    };
    tasks.clone().spawn_vital("gate", listener::run(settings, sockets, tasks, serve));
    Ok(())
}

impl Gate {
    async fn serve(&self, client: TcpStream, peer: SocketAddr) {
        match self.look(peer.ip().to_canonical()).await {
            Advice::Refuse(listing) => {
                tracing::info!(client = %peer.ip(), zone = listing.zone, code = listing.code, "refused");
                pass::refuse(self, client, peer, &listing).await;
            }
            Advice::Pass(facts) => {
                if let Err(error) = pass::through(self, client, peer, facts).await {
                    tracing::debug!(client = %peer.ip(), %error, "the connection broke off");
                }
            }
        }
    }

    async fn look(&self, client: IpAddr) -> Advice {
        if self.config.lists.is_empty() || (dns::is_private(client) && !self.config.ask_private) {
            return Advice::Pass(GateFacts::default());
        }
        let heard = self.lists.ask(client).await;
        decide(self.config.threshold, &heard)
    }
}
