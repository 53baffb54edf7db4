//! An SMTP server that takes everything and keeps nothing: the ceiling of the generator itself.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What is read at once.
const BUFFER: usize = 64 * 1024;
/// The longest command; what is longer is no client of ours.
const LINE_MOST: usize = 64 * 1024;

/// Serves until the process ends.
///
/// # Errors
/// When the address cannot be had.
pub(crate) async fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
    serve_on(listener).await
}

async fn serve_on(listener: TcpListener) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                connections.spawn(async move {
                    // A client that goes away in the middle is its own affair.
                    let _ = dialogue(stream).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn dialogue(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 sink ESMTP\r\n").await?;
    let (mut input, mut in_body) = (Vec::with_capacity(BUFFER), false);
    loop {
        if stream.read_buf(&mut input).await? == 0 || !in_body && input.len() > LINE_MOST {
            return Ok(());
        }
        let (mut replies, mut is_over) = (Vec::new(), false);
        while let Some(used) = step(&input, &mut in_body, &mut replies, &mut is_over) {
            input.drain(..used);
        }
        stream.write_all(&replies).await?;
        if is_over {
            return Ok(());
        }
    }
}

/// Takes one command, or what is there of a body: how many bytes, if anything can be taken.
fn step(input: &[u8], in_body: &mut bool, replies: &mut Vec<u8>, is_over: &mut bool) -> Option<usize> {
    if *in_body {
        if let Some(at) = memchr::memmem::find(input, b"\r\n.\r\n") {
            *in_body = false;
            replies.extend_from_slice(b"250 2.0.0 Ok: gone\r\n");
            return Some(at + 5);
        }
        // What cannot be the beginning of the end is forgotten.
        return input.len().checked_sub(4).filter(|used| *used > 0);
    }
    let end = memchr::memchr(b'\n', input)? + 1;
    let word = input.get(..4.min(end)).unwrap_or_default().to_ascii_uppercase();
    let reply: &[u8] = match word.as_slice() {
        b"EHLO" => b"250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
        b"DATA" => {
            *in_body = true;
            replies.extend_from_slice(b"354 Go on\r\n");
            // The end of this line stays: the dot may be the body's first line.
            return end.checked_sub(2);
        }
        b"QUIT" => {
            *is_over = true;
            b"221 Bye\r\n"
        }
        _ => b"250 Ok\r\n",
    };
    replies.extend_from_slice(reply);
    Some(end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;
    use crate::smtp::{Connection, Target, Word};

    #[test]
    fn any_split_gives_the_same_replies() {
        let said = b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\na\r\n..\r\n.b\r\n.\r\nDATA\r\n.\r\nQUIT\r\n";
        let replies = |size: usize| {
            let (mut input, mut in_body, mut replies, mut is_over) = (Vec::new(), false, Vec::new(), false);
            for part in said.chunks(size) {
                input.extend_from_slice(part);
                while let Some(used) = step(&input, &mut in_body, &mut replies, &mut is_over) {
                    input.drain(..used);
                }
            }
            assert!(input.is_empty() && is_over, "{size}");
            String::from_utf8(replies).unwrap()
        };
        let whole = replies(said.len());
        assert_eq!(whole.matches("250 2.0.0 Ok: gone").count(), 2);
        (1..said.len()).for_each(|size| assert_eq!(replies(size), whole, "{size}"));
    }

    #[tokio::test]
    async fn our_own_client_gets_rid_of_its_mail() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let servers = vec![listener.local_addr().unwrap()];
        let mut sink = JoinSet::new();
        sink.spawn(serve_on(listener));
        let target = Target { servers, tls: None, patience: Duration::from_secs(5), trickle: 1_000_000 };
        let mut connection = Connection::open(&target, None, 0).await.unwrap();
        let body = wire::smtp::client::stuff(&b".a\r\nb\r\n".repeat(50_000));
        for slow in [false, true, false] {
            let said =
                connection.send("a@x", &["b@x", "c@x"], &body[if slow { body.len() - 50_000 } else { 0 }..], slow);
            assert_eq!(said.await.unwrap(), [Word::Kept, Word::Kept]);
        }
        connection.quit().await;
    }
}
