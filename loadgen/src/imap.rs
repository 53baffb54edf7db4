//! As much of an IMAP client as reading back takes (RFC 3501).

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// A server may take so long to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest message that is read back.
const LITERAL_MOST: usize = 1 << 30;

/// A connection.
pub(crate) struct Imap {
    stream: BufReader<TcpStream>,
    tag: u32,
}

/// An untagged response: its text, and the literals in it.
#[derive(Debug, Default)]
pub(crate) struct Response {
    /// Without the literals.
    pub(crate) text: String,
    /// The literals.
    pub(crate) literals: Vec<Vec<u8>>,
}

impl Response {
    /// A number in front of a word: `* 12 EXISTS`.
    pub(crate) fn number_of(&self, word: &str) -> Option<u32> {
        let (number, rest) = self.text.strip_prefix("* ")?.split_once(' ')?;
        rest.split(' ').next().filter(|first| first.eq_ignore_ascii_case(word))?;
        number.parse().ok()
    }

    /// The number of a message that never changes.
    pub(crate) fn uid(&self) -> Option<u32> {
        let (_, rest) = self.text.split_once("UID ")?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }
}

impl Imap {
    /// Connects and logs in.
    ///
    /// # Errors
    /// When the server does not let us.
    pub(crate) async fn login(server: SocketAddr, user: &str, password: &str) -> anyhow::Result<Self> {
        let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(server)).await?;
        let stream = stream.with_context(|| format!("connecting to {server}"))?;
        stream.set_nodelay(true)?;
        let mut imap = Self { stream: BufReader::with_capacity(64 * 1024, stream), tag: 0 };
        imap.response().await?;
        let login = format!("LOGIN {} {}", quoted(user), quoted(password));
        if !imap.command(&login, |_| {}).await? {
            bail!("{server} does not let {user} log in");
        }
        Ok(imap)
    }

    /// Opens a mailbox for reading, and says how many messages it has; none if there is no such mailbox.
    ///
    /// # Errors
    /// When the connection breaks off.
    pub(crate) async fn examine(&mut self, mailbox: &str) -> anyhow::Result<Option<u32>> {
        let mut exists = 0;
        let note = |response: Response| exists = response.number_of("EXISTS").unwrap_or(exists);
        let done = self.command(&format!("EXAMINE {}", quoted(mailbox)), note).await?;
        Ok(done.then_some(exists))
    }

    /// Says a command, and hands over each untagged response. Whether the answer was OK.
    ///
    /// # Errors
    /// When the connection breaks off.
    pub(crate) async fn command(&mut self, command: &str, mut each: impl FnMut(Response)) -> anyhow::Result<bool> {
        self.tag += 1;
        let tag = format!("a{}", self.tag);
        self.stream.write_all(format!("{tag} {command}\r\n").as_bytes()).await?;
        loop {
            let response = self.response().await?;
            match response.text.strip_prefix(&tag) {
                Some(rest) => return Ok(rest.starts_with(" OK")),
                None => each(response),
            }
        }
    }

    async fn response(&mut self) -> anyhow::Result<Response> {
        tokio::time::timeout(PATIENCE, self.read()).await.context("the IMAP server does not answer")?
    }

    async fn read(&mut self) -> anyhow::Result<Response> {
        let mut response = Response::default();
        loop {
            let mut line = Vec::new();
            if self.stream.read_until(b'\n', &mut line).await? == 0 {
                bail!("the IMAP server has closed the connection");
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            let Some(length) = literal(line) else {
                response.text.push_str(line);
                return Ok(response);
            };
            if length > LITERAL_MOST {
                bail!("the IMAP server sends a literal of {length} bytes");
            }
            response.text.push_str(line);
            let mut content = vec![0; length];
            self.stream.read_exact(&mut content).await?;
            response.literals.push(content);
        }
    }
}

/// The length of the literal that follows this line, if one does.
fn literal(line: &str) -> Option<usize> {
    let (_, length) = line.strip_suffix('}')?.rsplit_once('{')?;
    length.parse().ok()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn response(text: &str) -> Response {
        Response { text: text.into(), literals: Vec::new() }
    }

    #[test]
    fn what_responses_say() {
        assert_eq!(response("* 12 EXISTS").number_of("EXISTS"), Some(12));
        assert_eq!(response("* 12 FETCH (UID 7 BODY[] {3}").number_of("EXISTS"), None);
        assert_eq!(response("* 12 FETCH (UID 7 BODY[] {3}").uid(), Some(7));
        assert_eq!(response("* OK [UIDNEXT 5]").number_of("OK"), None);
        assert_eq!(literal("* 1 FETCH (BODY[] {310}"), Some(310));
        assert_eq!(literal("* OK {"), None);
        assert_eq!(quoted("a\"b\\"), "\"a\\\"b\\\\\"");
    }

    #[tokio::test]
    async fn literals_are_read_whole() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let said = "* OK hello\r\na1 OK in\r\n* 2 EXISTS\r\na2 OK [READ-ONLY]\r\n\
                        * 1 FETCH (UID 9 BODY[] {6}\r\na3 OK\n)\r\n* 2 FETCH (UID 10 BODY[] {0}\r\n)\r\na3 OK done\r\n";
            stream.write_all(said.as_bytes()).await.unwrap();
            stream
        };
        let read = async {
            let mut imap = Imap::login(server, "a@x", "p").await.unwrap();
            assert_eq!(imap.examine("INBOX").await.unwrap(), Some(2));
            let mut got = Vec::new();
            let each = |response: Response| got.push((response.uid(), response.literals));
            assert!(imap.command("FETCH 1:* (UID BODY.PEEK[])", each).await.unwrap());
            got
        };
        let (got, _stream) = tokio::join!(read, serve);
        assert_eq!(got, [(Some(9), vec![b"a3 OK\n".to_vec()]), (Some(10), vec![vec![]])]);
    }
}
