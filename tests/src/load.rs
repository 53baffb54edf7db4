//! Load with a proof: senders that come again until they hear a final word, and everything read back at the end.
//!
//! Every tenth mail is a virus: a chain that lets something through unscanned while its parts are killed shows it here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::chain::{Chain, wait_for};
use crate::clients::{Smtp, eicar_file};

/// What was sent, and what its sender heard.
#[derive(Debug, Clone)]
struct Mail {
    number: u64,
    to: &'static [&'static str],
    is_kept: bool,
}

type Sent = Arc<Mutex<Vec<Mail>>>;

/// Senders that do what every MTA does: send, and send again until they have heard a final word.
pub struct Load {
    senders: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    sent: Sent,
}

const RECIPIENTS: [&[&str]; 3] =
    [&["alice@example.org"], &["bob@example.org"], &["alice@example.org", "bob@example.org"]];

const QUARANTINE: &str = "quarantine@example.org";

impl Load {
    pub fn start(chain: &Chain, senders: usize) -> Self {
        let (stop, sent, next): (Arc<AtomicBool>, Sent, Arc<AtomicU64>) = Default::default();
        let sender = |_| {
            let (stop, sent, next, port) = (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&next), chain.smtp);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let to = RECIPIENTS[usize::try_from(number % 3).unwrap()];
                    let is_kept = send_until_final(port, number, to);
                    sent.lock().unwrap().push(Mail { number, to, is_kept });
                }
            })
        };
        let senders = (0..senders).map(sender).collect();
        Self { senders, stop, sent }
    }

    /// How many mails had a final word.
    pub fn so_far(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    /// Ends the load once it is large enough, waits until all is settled, and reads everything back: nothing lost,
    /// nothing twice, nothing altered, all scanned, and no virus in a mailbox.
    pub fn proves(self, chain: &Chain) {
        // What was done to the chain may have taken less time than the chain took to get over it.
        wait_for("enough mail", || self.so_far() > 50);
        self.stop.store(true, Ordering::Relaxed);
        for sender in self.senders {
            sender.join().unwrap();
        }
        chain.settles();
        let mut found = read_back(chain);
        let (mut clean, mut viruses, mut lost, mut doubled) = (0, 0, Vec::new(), Vec::new());
        for mail in self.sent.lock().unwrap().iter() {
            let count = mail.to.len() as u64;
            if is_virus(mail.number) {
                viruses += count;
                // One copy for each recipient. What was refused is nowhere.
                let copies = found.remove(&(mail.number, QUARANTINE)).unwrap_or_default();
                let wanted = if mail.is_kept { count } else { 0 };
                lost.extend((copies < wanted).then(|| mail.clone()));
                doubled.extend((copies > wanted).then(|| mail.clone()));
                continue;
            }
            assert!(mail.is_kept, "a clean mail was refused: {mail:?}");
            clean += count;
            for to in mail.to {
                let copies = found.remove(&(mail.number, *to)).unwrap_or_default();
                lost.extend((copies == 0).then(|| mail.clone()));
                doubled.extend((copies > 1).then(|| mail.clone()));
            }
        }
        println!("{clean} recipients' mails and {viruses} viruses, {} lost, {} doubled", lost.len(), doubled.len());
        assert!(lost.is_empty() && doubled.is_empty(), "lost {lost:?}, doubled {doubled:?}");
        assert!(found.is_empty(), "in a mailbox in which it must not be: {found:?}");
        assert!(clean > 50 && viruses > 0, "the load was too small to show anything: {clean}, {viruses}");
        chain.books(&[("stored", clean), ("buried", 0)]);
    }
}

/// How often each mail is in each mailbox. Every one is as it was sent, and went through the scanner.
fn read_back(chain: &Chain) -> BTreeMap<(u64, &'static str), u64> {
    let mut found = BTreeMap::new();
    for user in ["alice@example.org", "bob@example.org", QUARANTINE] {
        for message in chain.read(user) {
            let text = String::from_utf8(message).unwrap();
            let subject = text.lines().find_map(|line| line.strip_prefix("Subject: mail "));
            let number = subject.and_then(|number| number.parse().ok()).unwrap();
            assert!(text.ends_with(&format!("\r\n{}", body(number))), "altered: {text}");
            assert!(user == QUARANTINE || text.contains("\r\nX-Chainmail-Scan: clean\r\n"), "unscanned: {text}");
            assert!(user == QUARANTINE || !is_virus(number), "a virus in a mailbox: {text}");
            *found.entry((number, user)).or_default() += 1;
        }
    }
    found
}

fn is_virus(number: u64) -> bool {
    number % 10 == 7
}

/// The same each time: a queue does not rewrite its mail.
fn body(number: u64) -> String {
    let text = if is_virus(number) { eicar_file() } else { "text ".repeat(200) };
    format!("Subject: mail {number}\r\nMessage-ID: <{number}@load>\r\n\r\n{text}\r\n")
}

/// Whether it was kept; only a virus may be refused.
fn send_until_final(port: u16, number: u64, to: &[&str]) -> bool {
    let body = body(number);
    loop {
        let sent =
            Smtp::try_connect(port).and_then(|mut smtp| smtp.try_send("load@elsewhere.example", to, body.as_bytes()));
        match sent {
            Ok(reply) if reply.starts_with('2') => return true,
            Ok(reply) if is_virus(number) && reply.starts_with("550 5.7.1 ") => return false,
            Ok(reply) => assert!(reply.starts_with('4'), "{reply}"),
            Err(_) => {}
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
