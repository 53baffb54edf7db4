//! The scanner as the stage sees it: a clamd that shows again and again that it finds something.
//!
//! A clamd whose database is empty or damaged answers PING and calls everything clean. So it is asked about the EICAR
//! test file, and a mail counts as clean only when it was found before the scan began, in the last answer there is, and
//! is found once more after the scan has ended. One question serves all scans that had ended when it was asked.
//! Whatever else clamd says to it, or does not say, takes its word away from it at once: it fails closed, the mail
//! waits. So it does when there was not plenty of room where clamd unpacks, before the scan and after it.

use std::future::Future;
use std::net::{IpAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{anyhow, bail};
use tokio::time::Instant;

use crate::clamd;
use crate::config::{Clamd, Config};
use crate::decide::Report;
use crate::room::Room;

/// The EICAR test file in two halves, so that no scanner takes this source, or our binary, for a virus.
const EICAR: [&str; 2] = ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STAN", "DARD-ANTIVIRUS-TEST-FILE!$H+H*"];

/// What every signature for it has in its name, in capitals or not. A name without it tells of something else, like a
/// limit that was exceeded.
const NAME: &str = "eicar";

/// It has to answer about the test file within that, or within a mail's deadline if that is shorter. Quickly done, but
/// it takes its turn behind the mails that are scanned. A mail waits for two questions at most, before its scan and
/// after it: all that stays below `work.time_limit`.
pub(crate) const QUESTION: Duration = Duration::from_secs(30);

/// A clamd and what it has shown. Its clones share that.
#[derive(Debug, Clone)]
pub struct Scanner(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clamd: Clamd,
    room: Room,
    deadline: Duration,
    /// Held while clamd is asked: whoever waits for it has the answer, too.
    asking: tokio::sync::Mutex<()>,
    last: Mutex<Option<Asked>>,
}

/// The last time that clamd was asked about the test file.
#[derive(Debug, Clone)]
struct Asked {
    /// When it was asked: it may have forgotten everything before it answered, and only what was scanned before counts.
    at: Instant,
    /// Whether it was found; else why not.
    found: Result<(), String>,
}

impl Scanner {
    /// The scanner of this configuration, which has shown nothing yet.
    pub fn new(config: &Config) -> Self {
        if let (Clamd::Tcp(address), None) = (&config.clamd, &config.room.folder)
            && !address.ip().is_loopback()
            && is_ours(address.ip())
        {
            tracing::warn!(
                %address,
                "clamd is on this machine, and nobody looks whether it has room to unpack mail: name its folder \
                 (stages.scan.temporary)"
            );
        }
        Self(Arc::new(Inner {
            clamd: config.clamd.clone(),
            room: config.room.clone(),
            deadline: config.deadline,
            asking: tokio::sync::Mutex::new(()),
            last: Mutex::new(None),
        }))
    }

    /// What it says about these bytes.
    ///
    /// # Errors
    /// When clamd cannot be reached, does not answer in time, breaks off, says anything but clean or found, or
    /// says clean and does not know the test file or may have had no room.
    pub(crate) async fn scan(&self, mail: &[u8]) -> anyhow::Result<Report> {
        // Without this, a clamd that learns again between a scan and the question after it would be believed what it
        // had said in its ignorance.
        if self.last().is_none_or(|last| last.found.is_err()) {
            self.prove(Instant::now()).await?;
        }
        let before = self.0.room.look()?;
        let report = self.told(within(self.0.deadline, clamd::scan(&self.0.clamd, mail)).await)?;
        if report == Report::Clean {
            self.0.room.look_again(before)?;
            self.prove(Instant::now()).await?;
        }
        Ok(report)
    }

    /// Whether it answers, within `patience`, has room, and finds the test file. Asked regularly, this tells of a
    /// scanner that knows nothing before the next mail comes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn probe(&self, patience: Duration) -> anyhow::Result<()> {
        // A scan takes its turn among the others and may take long when there is much to do; a ping does not.
        self.told(within(patience, clamd::ping(&self.0.clamd)).await)?;
        self.0.room.look()?;
        let _turn = self.0.asking.lock().await;
        self.ask().await
    }

    /// Makes sure that it finds the test file, asked then or later.
    async fn prove(&self, since: Instant) -> anyhow::Result<()> {
        let _turn = self.0.asking.lock().await;
        match self.last() {
            // Somebody else has asked while we waited.
            Some(last) if last.at >= since => last.found.map_err(|why| anyhow!(why)),
            _ => self.ask().await,
        }
    }

    async fn ask(&self) -> anyhow::Result<()> {
        let at = Instant::now();
        let found = within(QUESTION.min(self.0.deadline), self.finds_the_test_file())
            .await
            .map_err(|error| format!("{error:#}"));
        self.remember(Some(Asked { at, found: found.clone() }));
        found.map_err(|why| anyhow!(why))
    }

    /// A clamd that has failed may be another one when it answers again.
    fn told<T>(&self, answer: anyhow::Result<T>) -> anyhow::Result<T> {
        if answer.is_err() {
            self.remember(None);
        }
        answer
    }

    async fn finds_the_test_file(&self) -> anyhow::Result<()> {
        match clamd::scan(&self.0.clamd, EICAR.concat().as_bytes()).await? {
            Report::Found(name) if name.to_ascii_lowercase().contains(NAME) => Ok(()),
            Report::Found(name) => bail!("clamd takes the EICAR test file for {name}"),
            _ => bail!("clamd does not find the EICAR test file: its database is empty or damaged"),
        }
    }

    fn remember(&self, last: Option<Asked>) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    fn last(&self) -> Option<Asked> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether an address is this machine's own: of others none can be had.
fn is_ours(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

async fn within<T>(limit: Duration, what: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(limit, what).await.map_err(|_| anyhow!("clamd did not answer within {limit:?}"))?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use runtime::config::ByteSize;

    use super::*;

    /// A clamd that can be made to forget, and counts.
    struct Fake {
        /// Where it unpacks, in a folder of the test's.
        temporary: PathBuf,
        _folder: tempfile::TempDir,
        /// During the next scan another folder comes to stand there.
        swept: AtomicBool,
        forgetful: AtomicBool,
        /// It hangs up on whoever asks.
        failing: AtomicBool,
        /// It forgets right after the next scan, or learns.
        turns: AtomicBool,
        questions: AtomicUsize,
        scans: AtomicUsize,
    }

    impl Fake {
        fn start() -> (Arc<Self>, Scanner) {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let clamd = Clamd::Tcp(listener.local_addr().unwrap());
            let folder = tempfile::tempdir().unwrap();
            let temporary = folder.path().join("clamd");
            std::fs::create_dir(&temporary).unwrap();
            let room = Room { folder: Some(temporary.clone()), free: ByteSize(0) };
            let fake = Arc::new(Self {
                temporary,
                _folder: folder,
                swept: AtomicBool::default(),
                forgetful: AtomicBool::default(),
                failing: AtomicBool::default(),
                turns: AtomicBool::default(),
                questions: AtomicUsize::default(),
                scans: AtomicUsize::default(),
            });
            let served = Arc::clone(&fake);
            std::thread::spawn(move || listener.incoming().for_each(|stream| drop(served.serve(&mut stream.unwrap()))));
            let inner = Inner {
                clamd,
                room,
                deadline: Duration::from_secs(20),
                asking: tokio::sync::Mutex::new(()),
                last: Mutex::new(None),
            };
            (fake, Scanner(Arc::new(inner)))
        }

        fn serve(&self, stream: &mut TcpStream) -> std::io::Result<()> {
            if self.failing.load(Ordering::SeqCst) {
                return Ok(());
            }
            let mut command = Vec::new();
            while command.last() != Some(&0) {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                command.extend(byte);
            }
            if command == b"zPING\0" {
                return stream.write_all(b"PONG\0");
            }
            let mut body = Vec::new();
            loop {
                let mut length = [0; 4];
                stream.read_exact(&mut length)?;
                let mut piece = vec![0; u32::from_be_bytes(length) as usize];
                stream.read_exact(&mut piece)?;
                if piece.is_empty() {
                    break;
                }
                body.extend(piece);
            }
            let is_question = body == EICAR.concat().into_bytes();
            if is_question { &self.questions } else { &self.scans }.fetch_add(1, Ordering::SeqCst);
            if !is_question && self.swept.swap(false, Ordering::SeqCst) {
                std::fs::rename(&self.temporary, self.temporary.with_extension("old"))?;
                std::fs::create_dir(&self.temporary)?;
            }
            let finds = is_question && !self.forgetful.load(Ordering::SeqCst);
            let said: &[u8] = if finds { b"stream: Win.Test.EICAR_HDB-1 FOUND\0" } else { b"stream: OK\0" };
            if !is_question && self.turns.swap(false, Ordering::SeqCst) {
                self.forgetful.fetch_xor(true, Ordering::SeqCst);
            }
            stream.write_all(said)
        }

        fn counts(&self) -> (usize, usize) {
            (self.questions.load(Ordering::SeqCst), self.scans.load(Ordering::SeqCst))
        }
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn an_own_address_is_known() {
        assert!(is_ours([127, 0, 0, 1].into()));
        assert!(!is_ours([192, 0, 2, 1].into()));
    }

    #[tokio::test]
    async fn one_question_serves_all_scans_that_had_ended() {
        let (fake, scanner) = Fake::start();
        let ended = Instant::now();
        for proved in futures::future::join_all((0..20).map(|_| scanner.prove(ended))).await {
            proved.unwrap();
        }
        assert_eq!(fake.counts(), (1, 0));
        scanner.prove(Instant::now()).await.unwrap();
        assert_eq!(fake.counts(), (2, 0), "and none that ended later");
    }

    #[tokio::test]
    async fn a_clean_mail_is_proven_after_its_scan() {
        let (fake, scanner) = Fake::start();
        for mails in 1..=5 {
            assert_eq!(scanner.scan(b"mail").await.unwrap(), Report::Clean);
            assert_eq!(fake.counts(), (mails + 1, mails), "before the first scan, and after each");
        }
    }

    /// It was found a moment ago, and the scan that follows is of a clamd that knows nothing any more.
    #[tokio::test]
    async fn a_proof_from_before_does_not_count_afterwards() {
        let (fake, scanner) = Fake::start();
        scanner.probe(LONG).await.unwrap();
        fake.turns.store(true, Ordering::SeqCst);
        let error = scanner.scan(b"mail").await.unwrap_err();
        assert!(error.to_string().contains("does not find the EICAR test file"), "{error}");
        assert_eq!(fake.counts(), (2, 1));
    }

    /// What it said before it learned again is not proven by what it knows now.
    #[tokio::test]
    async fn who_is_known_to_be_ignorant_is_not_given_mail() {
        let (fake, scanner) = Fake::start();
        fake.forgetful.store(true, Ordering::SeqCst);
        assert!(scanner.probe(LONG).await.is_err());
        fake.turns.store(true, Ordering::SeqCst);
        assert!(scanner.scan(b"mail").await.is_err());
        assert_eq!(fake.counts(), (2, 0));
    }

    /// There was plenty of room both times, but not in the folder in which clamd had to unpack.
    #[tokio::test]
    async fn a_folder_that_was_replaced_proves_no_room() {
        let (fake, scanner) = Fake::start();
        fake.swept.store(true, Ordering::SeqCst);
        let error = scanner.scan(b"mail").await.unwrap_err();
        assert!(error.to_string().contains("has become another during a scan"), "{error}");
        assert_eq!(scanner.scan(b"mail").await.unwrap(), Report::Clean);
    }

    #[tokio::test]
    async fn a_clamd_that_has_failed_is_asked_anew() {
        let (fake, scanner) = Fake::start();
        scanner.probe(LONG).await.unwrap();
        fake.failing.store(true, Ordering::SeqCst);
        assert!(scanner.probe(LONG).await.is_err());
        fake.failing.store(false, Ordering::SeqCst);
        fake.forgetful.store(true, Ordering::SeqCst);
        assert!(scanner.scan(b"mail").await.is_err());
        assert_eq!(fake.counts(), (2, 0));
    }

    #[tokio::test]
    async fn nothing_is_clean_to_a_scanner_that_knows_nothing() {
        let (fake, scanner) = Fake::start();
        fake.forgetful.store(true, Ordering::SeqCst);
        for report in futures::future::join_all((0..20).map(|_| scanner.scan(b"mail"))).await {
            assert!(report.unwrap_err().to_string().contains("does not find the EICAR test file"));
        }
        assert_eq!(fake.counts().1, 0);
        fake.forgetful.store(false, Ordering::SeqCst);
        assert_eq!(scanner.scan(b"mail").await.unwrap(), Report::Clean);
    }
}
