//! A connection to an IMAP server, and where the messages of its mailbox are.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// A server that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(80);

/// How long a client is idle where that is only one of the things it does.
const MOMENT: Duration = Duration::from_millis(30);

/// A connection, with the greeting read.
pub struct Session {
    stream: BufReader<TcpStream>,
    tags: usize,
    /// Replies that were read while something else was waited for.
    early: VecDeque<Vec<u8>>,
    /// What the session believes to be in the mailbox: a name of our own for each message.
    messages: Vec<u64>,
    names: u64,
}

impl Session {
    pub fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let stream = BufReader::new(stream);
        let mut session = Self { stream, tags: 0, early: VecDeque::new(), messages: Vec::new(), names: 0 };
        session.reply()?;
        Ok(session)
    }

    /// A reply with its literals, without its line end.
    pub fn reply(&mut self) -> io::Result<Vec<u8>> {
        if let Some(reply) = self.early.pop_front() {
            return Ok(reply);
        }
        self.read()
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut reply = Vec::new();
        loop {
            let begun = reply.len();
            if self.stream.read_until(b'\n', &mut reply)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some(count) = literal_at_end(&reply[begun..]) else { break };
            let literal = reply.len();
            reply.resize(literal + count, 0);
            self.stream.read_exact(&mut reply[literal..])?;
        }
        if reply.ends_with(b"\r\n") {
            reply.truncate(reply.len() - 2);
        }
        self.follow(&reply);
        Ok(reply)
    }

    /// Sends a command under a tag, waiting before each of its literals until the server wants it. Where it refuses
    /// one, it has answered, and the rest is not sent.
    pub fn send(&mut self, command: &[u8]) -> io::Result<String> {
        self.tags += 1;
        let tag = format!("c{}", self.tags);
        let mut rest = [tag.as_bytes(), b" ", command, b"\r\n"].concat();
        while let Some((end, count)) = literal(&rest) {
            self.stream.get_mut().write_all(&rest[..end])?;
            loop {
                let reply = self.read()?;
                if reply.starts_with(b"+") {
                    break;
                }
                let is_end = reply.starts_with(format!("{tag} ").as_bytes());
                self.early.push_back(reply);
                if is_end {
                    return Ok(tag);
                }
            }
            self.stream.get_mut().write_all(&rest[end..end + count])?;
            rest.drain(..end + count);
        }
        self.stream.get_mut().write_all(&rest)?;
        Ok(tag)
    }

    /// Sends a command, and gives all replies up to its own; the last is that of the command, without the tag.
    pub fn command(&mut self, command: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let tag = format!("{} ", self.send(command)?);
        let mut replies = Vec::new();
        loop {
            let reply = self.reply()?;
            if let Some(end) = reply.strip_prefix(tag.as_bytes()) {
                replies.push(end.to_vec());
                return Ok(replies);
            }
            replies.push(reply);
        }
    }

    /// The same, where only OK will do.
    pub fn must(&mut self, command: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let said = || String::from_utf8_lossy(command).into_owned();
        let replies = self.command(command).map_err(|error| format!("{}: {error}", said()))?;
        match replies.last() {
            Some(end) if end.to_ascii_uppercase().starts_with(b"OK") => Ok(replies),
            end => Err(format!("{}: {}", said(), String::from_utf8_lossy(end.map_or(b"nothing", |end| end)))),
        }
    }

    /// Waits for news, for a moment, and ends that. Gives the tag, under which the replies are still to be read.
    pub fn idle(&mut self) -> io::Result<String> {
        let tag = self.send(b"IDLE")?;
        loop {
            let reply = self.read()?;
            if reply.starts_with(b"+") {
                break;
            }
            let is_end = reply.starts_with(format!("{tag} ").as_bytes());
            self.early.push_back(reply);
            if is_end {
                return Ok(tag);
            }
        }
        self.stream.get_ref().set_read_timeout(Some(MOMENT))?;
        match self.stream.fill_buf() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        self.stream.get_ref().set_read_timeout(Some(PATIENCE))?;
        self.stream.get_mut().write_all(b"DONE\r\n")?;
        Ok(tag)
    }

    pub fn messages(&self) -> &[u64] {
        &self.messages
    }

    /// What a reply does to the numbers of the messages.
    fn follow(&mut self, reply: &[u8]) {
        let text = String::from_utf8_lossy(reply);
        let mut words = text.split_whitespace().skip(1);
        let number = words.next().and_then(|word| word.parse::<usize>().ok());
        match (number, words.next().map(str::to_ascii_uppercase).as_deref()) {
            (Some(count), Some("EXISTS")) => {
                self.messages.truncate(count);
                while self.messages.len() < count {
                    self.names += 1;
                    self.messages.push(self.names);
                }
            }
            (Some(number), Some("EXPUNGE")) if (1..=self.messages.len()).contains(&number) => {
                self.messages.remove(number - 1);
            }
            _ => {}
        }
    }
}

/// The length of the literal that a line announces at its end.
fn literal_at_end(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"}\r\n")?;
    let open = line.iter().rposition(|&octet| octet == b'{')?;
    std::str::from_utf8(&line[open + 1..]).ok()?.parse().ok()
}

/// Where the first literal of a command begins, and how long it is.
fn literal(command: &[u8]) -> Option<(usize, usize)> {
    let end = command.windows(3).position(|part| part == b"}\r\n")? + 3;
    literal_at_end(&command[..end]).map(|count| (end, count))
}
