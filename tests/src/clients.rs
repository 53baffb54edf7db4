//! Plain clients: SMTP that comes again until it hears a final word, POP3, HTTP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::chain::{Chain, wait_for};

/// A server may take so long to answer, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(80);

/// The EICAR test file; put together here so that no scanner takes this source for a virus.
pub fn eicar_file() -> String {
    ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS", "-TEST-FILE!$H+H*"].concat()
}

/// The same in a mail.
pub fn eicar() -> Vec<u8> {
    format!("Subject: look\r\n\r\n{}\r\n", eicar_file()).into_bytes()
}

/// An SMTP client. Whatever breaks off is an error.
pub struct Smtp {
    reader: BufReader<TcpStream>,
}

impl Smtp {
    /// Connects and says EHLO: to a gate that may have been started just now, as accept behind it.
    pub fn connect(chain: &Chain) -> Self {
        let mut connected = None;
        wait_for("the gate", || {
            connected = Self::try_connect(chain.smtp).ok();
            connected.is_some()
        });
        connected.unwrap()
    }

    pub fn try_connect(port: u16) -> std::io::Result<Self> {
        let mut smtp = Self::raw(TcpStream::connect(("127.0.0.1", port))?)?;
        let greeting = smtp.reply()?;
        let hello = if greeting.starts_with("220 ") { smtp.say(b"EHLO client.example\r\n")? } else { greeting };
        if hello.starts_with("250 ") { Ok(smtp) } else { Err(std::io::Error::other(hello)) }
    }

    /// A connection on which nothing was said yet.
    pub fn raw(stream: TcpStream) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// The connection itself.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.reader.get_mut()
    }

    /// The last line of the next reply.
    pub fn reply(&mut self) -> std::io::Result<String> {
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line);
            }
        }
    }

    pub fn say(&mut self, bytes: &[u8]) -> std::io::Result<String> {
        self.reader.get_mut().write_all(bytes)?;
        self.reply()
    }

    /// One command, one reply.
    pub fn command(&mut self, line: &str) -> String {
        self.say(format!("{line}\r\n").as_bytes()).unwrap()
    }

    /// Sends a mail, and gives the final reply.
    pub fn send(&mut self, from: &str, to: &[&str], body: &[u8]) -> String {
        self.try_send(from, to, body).unwrap()
    }

    pub fn try_send(&mut self, from: &str, to: &[&str], body: &[u8]) -> std::io::Result<String> {
        let mut reply = self.say(format!("MAIL FROM:<{from}>\r\n").as_bytes())?;
        for recipient in to {
            if reply.starts_with('2') {
                reply = self.say(format!("RCPT TO:<{recipient}>\r\n").as_bytes())?;
            }
        }
        if reply.starts_with('2') {
            reply = self.say(b"DATA\r\n")?;
        }
        if !reply.starts_with('3') {
            return Ok(reply);
        }
        self.say(&wire::smtp::client::stuff(body))
    }
}

/// All messages of a maildrop.
pub fn maildrop(port: u16, user: &str, password: &str) -> Vec<Vec<u8>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = |command: &str| {
        if !command.is_empty() {
            reader.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
        }
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line).unwrap();
        line
    };
    line("");
    line(&format!("USER {user}"));
    let login = line(&format!("PASS {password}"));
    assert!(login.starts_with(b"+OK"), "{}", String::from_utf8_lossy(&login));
    let stat = String::from_utf8(line("STAT")).unwrap();
    let count: usize = stat.split(' ').nth(1).unwrap().parse().unwrap();
    let mut messages = Vec::new();
    for number in 1..=count {
        assert!(line(&format!("RETR {number}")).starts_with(b"+OK"));
        let mut message = Vec::new();
        loop {
            let mut text = line("");
            if text == b".\r\n" {
                break;
            }
            if text.starts_with(b".") {
                text.remove(0);
            }
            message.extend(text);
        }
        messages.push(message);
    }
    messages
}

/// What an HTTP server answers; nothing if there is none.
pub fn http(port: u16, path: &str) -> String {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().unwrap_or_default()
}
