//! Passing a connection through to an accept node, or refusing it. Nothing is read of the mail.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proto::{GateFacts, Listing};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::proxy::Header;
use wire::smtp::Reply;

use crate::Gate;

/// An accept node that does not take a connection within that is passed over.
const CONNECT: Duration = Duration::from_secs(2);
/// A refused client may take so long to read why.
const REFUSED: Duration = Duration::from_secs(10);
/// Bytes under way in one direction of a connection.
const BUFFER: usize = 8 * 1024;

/// Tells a listed client why it is not served: 554 in place of the greeting (RFC 5321 section 3.1), then 221 to QUIT.
pub(crate) async fn refuse(mut client: TcpStream, peer: SocketAddr, listing: &Listing) {
    let refusal = Reply::listed(&peer.ip().to_canonical().to_string(), &listing.zone, &listing.text).encode();
    // Whether the client listens is its own affair.
    let _ = tokio::time::timeout(REFUSED, async {
        client.write_all(&refusal).await?;
        let mut said = [0; 512];
        let count = client.read(&mut said).await?;
        if said[..count].to_ascii_uppercase().starts_with(b"QUIT") {
            client.write_all(&Reply::bye().encode()).await?;
        }
        client.shutdown().await
    })
    .await;
}

/// Connects to an accept node, says who the client is, and copies both ways until both are done.
pub(crate) async fn through(gate: &Gate, mut client: TcpStream, peer: SocketAddr, facts: GateFacts) -> io::Result<()> {
    let Some(mut node) = connect(gate).await else {
        tracing::warn!("no accept node can be reached; clients are told to come again");
        client.write_all(b"421 4.3.2 Service not available; try again later\r\n").await?;
        return client.shutdown().await;
    };
    let header = Header { addresses: Some((peer, client.local_addr()?)), facts: facts.encode() };
    node.write_all(&header.encode()).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_node, mut to_node) = node.split();
    let up = copy(&mut from_client, &mut to_node, gate.config.idle);
    let down = copy(&mut from_node, &mut to_client, gate.config.idle);
    tokio::pin!(up, down);
    tokio::select! {
        // What the node says last must reach the client; what the client says to a node that is gone need not.
        down = &mut down => down,
        up = &mut up => {
            up?;
            down.await
        }
    }
}

async fn connect(gate: &Gate) -> Option<TcpStream> {
    let nodes = &gate.config.accept;
    let first = gate.turn.fetch_add(1, Ordering::Relaxed);
    for offset in 0..nodes.len() {
        let node = nodes[(first.wrapping_add(offset)) % nodes.len()];
        match tokio::time::timeout(CONNECT, TcpStream::connect(node)).await {
            Ok(Ok(stream)) => {
                // Small replies must not wait for each other.
                let _ = stream.set_nodelay(true);
                return Some(stream);
            }
            Ok(Err(error)) => tracing::debug!(%node, %error, "an accept node does not answer"),
            Err(_) => tracing::debug!(%node, "an accept node does not answer in time"),
        }
        if gate.tasks.is_stopping() {
            return None;
        }
    }
    None
}

/// Copies until the end of the input, then closes the output's side. Nothing moving for `idle` is an error.
async fn copy<R, W>(from: &mut R, to: &mut W, idle: Duration) -> io::Result<()>
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    let late = || io::Error::new(io::ErrorKind::TimedOut, "nothing moved for too long");
    loop {
        let count = tokio::time::timeout(idle, from.read(&mut buffer)).await.map_err(|_| late())??;
        if count == 0 {
            return to.shutdown().await;
        }
        tokio::time::timeout(idle, to.write_all(&buffer[..count])).await.map_err(|_| late())??;
    }
}
