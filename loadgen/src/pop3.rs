//! As much of a POP3 client as reading back takes (RFC 1939). It deletes nothing.
//!
//! Half a line, or half a message, is an error: it may say something else than the whole.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// A server may take so long to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection.
pub(crate) struct Pop3 {
    stream: BufReader<TcpStream>,
}

impl Pop3 {
    /// Connects and logs in.
    ///
    /// # Errors
    /// When the server does not let us.
    pub(crate) async fn login(server: SocketAddr, user: &str, password: &str) -> anyhow::Result<Self> {
        let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(server)).await?;
        let stream = stream.with_context(|| format!("connecting to {server}"))?;
        stream.set_nodelay(true)?;
        let mut pop3 = Self { stream: BufReader::with_capacity(64 * 1024, stream) };
        pop3.reply().await?;
        pop3.command(&format!("USER {user}")).await?;
        pop3.command(&format!("PASS {password}")).await?;
        Ok(pop3)
    }

    /// How many messages there are.
    ///
    /// # Errors
    /// When the server does not say.
    pub(crate) async fn count(&mut self) -> anyhow::Result<u32> {
        let stat = self.command("STAT").await?;
        let count = stat.split(' ').nth(1).and_then(|count| count.parse().ok());
        count.with_context(|| format!("the POP3 server does not say how many messages there are: {stat}"))
    }

    /// A message, or its header alone.
    ///
    /// # Errors
    /// When it cannot be had whole.
    pub(crate) async fn message(&mut self, number: u32, part: Part) -> anyhow::Result<Vec<u8>> {
        let command = match part {
            Part::Header => format!("TOP {number} 0"),
            Part::Whole => format!("RETR {number}"),
        };
        self.command(&command).await?;
        let mut message = Vec::new();
        loop {
            let line = self.line().await?;
            if line == b".\r\n" {
                return Ok(message);
            }
            message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
    }

    /// Takes leave, so that the next session finds the maildrop unlocked.
    ///
    /// # Errors
    /// When the connection breaks off.
    pub(crate) async fn quit(mut self) -> anyhow::Result<()> {
        self.command("QUIT").await.map(drop)
    }

    async fn command(&mut self, command: &str) -> anyhow::Result<String> {
        self.stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        self.reply().await
    }

    async fn reply(&mut self) -> anyhow::Result<String> {
        let line = self.line().await?;
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if !line.starts_with("+OK") {
            bail!("the POP3 server says {line}");
        }
        Ok(line)
    }

    async fn line(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut line = Vec::new();
        let read = tokio::time::timeout(PATIENCE, self.stream.read_until(b'\n', &mut line)).await;
        read.context("the POP3 server does not answer")??;
        if !line.ends_with(b"\n") {
            bail!("the POP3 server has closed the connection");
        }
        Ok(line)
    }
}

/// How much of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Its header.
    Header,
    /// All of it.
    Whole,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What is read of a maildrop of one message by a server that says this, a line for each command.
    async fn against(says: &str) -> anyhow::Result<(u32, Vec<u8>)> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            let (front, last) = says.rsplit_once('|').unwrap_or(("", says));
            for said in front.split('|').filter(|said| !said.is_empty()) {
                stream.get_mut().write_all(said.as_bytes()).await.unwrap();
                stream.read_line(&mut line).await.unwrap();
            }
            // Whoever waits for more sees the end of the connection.
            stream.get_mut().write_all(last.as_bytes()).await.unwrap();
        };
        let read = async {
            let mut pop3 = Pop3::login(server, "a@x", "p").await?;
            let count = pop3.count().await?;
            let message = pop3.message(1, Part::Whole).await?;
            pop3.quit().await?;
            Ok((count, message))
        };
        tokio::join!(read, serve).0
    }

    #[tokio::test]
    async fn messages_are_read_whole() {
        let begin = "+OK hello\r\n|+OK\r\n|+OK in\r\n|+OK 1 20\r\n|+OK\r\n";
        let read = against(&format!("{begin}a\r\n..b\r\n\r\n.\r\n|+OK bye\r\n")).await.unwrap();
        assert_eq!(read, (1, b"a\r\n.b\r\n\r\n".to_vec()));
        for bad in
            ["-ERR busy\r\n", "+OK hello\r\n|+OK\r\n|-ERR no\r\n", &format!("{begin}a\r\n"), &format!("{begin}a\r\n.")]
        {
            assert!(against(bad).await.is_err(), "{bad}");
        }
    }
}
