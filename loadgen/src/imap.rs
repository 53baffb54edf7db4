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

/// A mailbox that was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Opened {
    /// Its messages.
    pub(crate) exists: u32,
    /// For how long its numbers hold.
    pub(crate) validity: u32,
}

impl Response {
    /// A number in front of a word: `* 12 EXISTS`.
    pub(crate) fn number_of(&self, word: &str) -> Option<u32> {
        let (number, rest) = self.text.strip_prefix("* ")?.split_once(' ')?;
        rest.split(' ').next().filter(|first| first.eq_ignore_ascii_case(word))?;
        number.parse().ok()
    }

    /// The number of a code: `* OK [UIDVALIDITY 7] ...`.
    fn code(&self, word: &str) -> Option<u32> {
        let (code, _) = self.text.strip_prefix("* OK [")?.split_once(']')?;
        code.strip_prefix(word)?.trim_start().parse().ok()
    }

    /// The mailbox that a response to LIST names, if it is one that can be opened.
    fn mailbox(&self) -> Option<String> {
        let (attributes, rest) = self.text.strip_prefix("* LIST (")?.split_once(") ")?;
        if attributes.split(' ').any(|word| ["\\noselect", "\\nonexistent"].contains(&&*word.to_ascii_lowercase())) {
            return None;
        }
        if let Some(name) = self.literals.last() {
            return Some(String::from_utf8_lossy(name).into_owned());
        }
        // The delimiter is NIL or one quoted character, which may be a quoted quote or backslash.
        let name = rest.strip_prefix("NIL ").or_else(|| rest.get(1..)?.split_once("\" ").map(|(_, name)| name))?;
        let Some(quoted) = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) else {
            return Some(name.to_owned());
        };
        let (mut name, mut characters) = (String::new(), quoted.chars());
        while let Some(character) = characters.next() {
            name.extend(if character == '\\' { characters.next() } else { Some(character) });
        }
        Some(name)
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

    /// Opens a mailbox for reading; none if there is no such mailbox.
    ///
    /// # Errors
    /// When the connection breaks off.
    pub(crate) async fn examine(&mut self, mailbox: &str) -> anyhow::Result<Option<Opened>> {
        let mut opened = Opened::default();
        let note = |response: Response| {
            opened.exists = response.number_of("EXISTS").unwrap_or(opened.exists);
            opened.validity = response.code("UIDVALIDITY").unwrap_or(opened.validity);
        };
        let done = self.command(&format!("EXAMINE {}", quoted(mailbox)), note).await?;
        Ok(done.then_some(opened))
    }

    /// Every mailbox that can be opened.
    ///
    /// # Errors
    /// When the connection breaks off, or the server does not say.
    pub(crate) async fn mailboxes(&mut self) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        if !self.command("LIST \"\" \"*\"", |response| names.extend(response.mailbox())).await? {
            bail!("the IMAP server does not say which mailboxes there are");
        }
        Ok(names)
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
            self.stream.read_until(b'\n', &mut line).await?;
            if !line.ends_with(b"\n") {
                // Half a line may say something else than the whole.
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
        assert_eq!(response("* OK [UIDVALIDITY 17] valid").code("UIDVALIDITY"), Some(17));
        assert_eq!(response("* OK [UIDNEXT 17] next").code("UIDVALIDITY"), None);
    }

    #[test]
    fn which_mailboxes_there_are() {
        for (text, want) in [
            ("* LIST (\\HasNoChildren) \"/\" INBOX", Some("INBOX")),
            ("* LIST () NIL \"Sent Mail\"", Some("Sent Mail")),
            ("* LIST () \"\\\\\" \"a\\\"b\\\\\"", Some("a\"b\\")),
            ("* LIST (\\Noselect \\HasChildren) \"/\" lists", None),
            ("* LIST (\\NonExistent) \"/\" lists", None),
            ("* 3 EXISTS", None),
        ] {
            assert_eq!(response(text).mailbox().as_deref(), want, "{text}");
        }
        let literal = Response { text: "* LIST () \"/\" {3}".into(), literals: vec![b"a b".to_vec()] };
        assert_eq!(literal.mailbox().as_deref(), Some("a b"));
    }

    #[tokio::test]
    async fn literals_are_read_whole() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let said = "* OK hello\r\na1 OK in\r\n* 2 EXISTS\r\n* OK [UIDVALIDITY 7] a\r\na2 OK [READ-ONLY]\r\n\
                        * 1 FETCH (UID 9 BODY[] {6}\r\na3 OK\n)\r\n* 2 FETCH (UID 10 BODY[] {0}\r\n)\r\na3 OK done\r\n";
            stream.write_all(said.as_bytes()).await.unwrap();
            stream
        };
        let read = async {
            let mut imap = Imap::login(server, "a@x", "p").await.unwrap();
            assert_eq!(imap.examine("INBOX").await.unwrap(), Some(Opened { exists: 2, validity: 7 }));
            let mut got = Vec::new();
            let each = |response: Response| got.push((response.uid(), response.literals));
            assert!(imap.command("FETCH 1:* (UID BODY.PEEK[])", each).await.unwrap());
            got
        };
        let (got, _stream) = tokio::join!(read, serve);
        assert_eq!(got, [(Some(9), vec![b"a3 OK\n".to_vec()]), (Some(10), vec![vec![]])]);
    }
}
