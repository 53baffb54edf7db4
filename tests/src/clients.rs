//! Plain clients: SMTP that comes again until it hears a final word, POP3, HTTP.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::chain::{Chain, wait_for};

/// A server may take so long to answer, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(80);

/// The EICAR test file in a mail; put together here so that no scanner takes this source for a virus.
pub fn eicar() -> Vec<u8> {
    let parts = ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS", "-TEST-FILE!$H+H*"];
    format!("Subject: look\r\n\r\n{}\r\n", parts.concat()).into_bytes()
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

type Sent = Arc<Mutex<BTreeMap<String, Vec<&'static str>>>>;

/// Senders that do what every MTA does: send, and send again until they have heard a final word.
pub struct Load {
    senders: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    sent: Sent,
}

const RECIPIENTS: [&[&str]; 3] =
    [&["alice@example.org"], &["bob@example.org"], &["alice@example.org", "bob@example.org"]];

impl Load {
    pub fn start(chain: &Chain, senders: usize) -> Self {
        let (stop, sent, next): (Arc<AtomicBool>, Sent, Arc<AtomicU64>) = Default::default();
        let sender = |_| {
            let (stop, sent, next, port) = (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&next), chain.smtp);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let to = RECIPIENTS[usize::try_from(number % 3).unwrap()];
                    send_until_kept(port, number, to);
                    sent.lock().unwrap().insert(format!("mail {number}"), to.to_vec());
                }
            })
        };
        let senders = (0..senders).map(sender).collect();
        Self { senders, stop, sent }
    }

    /// How many mails were answered with 250.
    pub fn so_far(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    /// Ends the load once it is large enough, waits until all is settled, and reads everything back: nothing lost, nothing
    /// twice, all scanned.
    pub fn proves(self, chain: &Chain) {
        // What was done to the chain may have taken less time than the chain took to get over it.
        wait_for("enough mail", || self.so_far() > 50);
        self.stop.store(true, Ordering::Relaxed);
        for sender in self.senders {
            sender.join().unwrap();
        }
        chain.settles();
        let sent = self.sent.lock().unwrap();
        let mut found: BTreeMap<(String, &str), u64> = BTreeMap::new();
        for user in ["alice@example.org", "bob@example.org"] {
            for message in chain.read(user) {
                let text = String::from_utf8(message).unwrap();
                assert!(text.contains("\r\nX-Chainmail-Scan: clean\r\n"), "unscanned: {text}");
                let subject = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap();
                *found.entry((subject.to_owned(), user)).or_default() += 1;
            }
        }
        let wanted = || sent.iter().flat_map(|(subject, to)| to.iter().map(|to| (subject.clone(), *to)));
        let lost: Vec<_> = wanted().filter(|mail| !found.contains_key(mail)).collect();
        let doubled: Vec<_> = found.iter().filter(|(_, count)| **count > 1).collect();
        let count = wanted().count() as u64;
        println!("{count} recipients' mails, {} lost, {} doubled", lost.len(), doubled.len());
        assert!(lost.is_empty() && doubled.is_empty(), "lost {lost:?}, doubled {doubled:?}");
        assert!(count > 50, "the load was too small to show anything: {count}");
        assert_eq!(found.len() as u64, count, "something was delivered that nobody sent");
        chain.books(&[("accepted", count), ("stored", count), ("held", 0), ("rejected", 0), ("buried", 0)]);
    }
}

/// The body is the same each time: a queue does not rewrite its mail.
fn send_until_kept(port: u16, number: u64, to: &[&str]) {
    let body = format!("Subject: mail {number}\r\nMessage-ID: <{number}@load>\r\n\r\n{}\r\n", "text ".repeat(200));
    loop {
        let sent =
            Smtp::try_connect(port).and_then(|mut smtp| smtp.try_send("load@elsewhere.example", to, body.as_bytes()));
        match sent {
            Ok(reply) if reply.starts_with('2') => return,
            Ok(reply) => assert!(reply.starts_with('4'), "{reply}"),
            Err(_) => {}
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
