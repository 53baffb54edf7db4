//! The scanner as the stage sees it: a clamd that has shown lately that it finds something.
//!
//! A clamd whose database is empty or damaged answers PING and calls everything clean. So it is asked about the EICAR test
//! file from time to time, and a mail counts as clean only while the last answer was that this is a virus, and is not old.
//! Whatever else clamd says to it, or does not say, takes its word away from it at once: it fails closed, the mail waits.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{anyhow, bail};
use tokio::time::Instant;

use crate::clamd;
use crate::config::{Clamd, Config};
use crate::decide::Report;

/// The EICAR test file in two halves, so that no scanner takes this source, or our binary, for a virus.
const EICAR: [&str; 2] = ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STAN", "DARD-ANTIVIRUS-TEST-FILE!$H+H*"];

/// What every signature for it has in its name, in capitals or not. A name without it tells of something else, like a limit
/// that was exceeded.
const NAME: &str = "eicar";

/// A clamd and what it has shown. Its clones share that.
#[derive(Debug, Clone)]
pub struct Scanner(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clamd: Clamd,
    deadline: Duration,
    proof: Duration,
    /// Held while clamd is asked: whoever waits for it has the answer, too.
    asking: tokio::sync::Mutex<()>,
    last: Mutex<Option<Asked>>,
}

/// The last time that clamd was asked about the test file.
#[derive(Debug, Clone)]
struct Asked {
    asked: Instant,
    answered: Instant,
    /// Whether it was found; else why not.
    found: Result<(), String>,
}

impl Scanner {
    /// The scanner of this configuration, which has shown nothing yet.
    pub fn new(config: &Config) -> Self {
        Self(Arc::new(Inner {
            clamd: config.clamd.clone(),
            deadline: config.deadline,
            proof: config.proof,
            asking: tokio::sync::Mutex::new(()),
            last: Mutex::new(None),
        }))
    }

    /// What it says about these bytes.
    ///
    /// # Errors
    /// When clamd cannot be reached, does not answer in time, breaks off, says anything but clean or found, or says clean
    /// and does not know the test file.
    pub(crate) async fn scan(&self, mail: &[u8]) -> anyhow::Result<Report> {
        within(self.0.deadline, async {
            self.prove().await?;
            let report = clamd::scan(&self.0.clamd, mail).await?;
            if report == Report::Clean {
                // The database may have been replaced in the meantime, and the scan may have taken longer than a proof
                // counts.
                self.prove().await?;
            }
            Ok(report)
        })
        .await
    }

    /// Whether it answers, within `patience`, and finds the test file. Asked regularly, this keeps the proof fresh, so that
    /// no mail has to wait for it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn probe(&self, patience: Duration) -> anyhow::Result<()> {
        // A scan takes its turn among the others and may take long when there is much to do; a ping does not.
        within(patience, clamd::ping(&self.0.clamd)).await?;
        let _turn = self.0.asking.lock().await;
        self.ask().await
    }

    /// Makes sure that it has found the test file lately.
    async fn prove(&self) -> anyhow::Result<()> {
        let came = Instant::now();
        if self.last().is_some_and(|last| last.found.is_ok() && last.asked.elapsed() <= self.0.proof) {
            return Ok(());
        }
        let _turn = self.0.asking.lock().await;
        match self.last() {
            // Somebody else has asked while we waited.
            Some(last) if last.answered >= came => last.found.map_err(|why| anyhow!(why)),
            _ => self.ask().await,
        }
    }

    async fn ask(&self) -> anyhow::Result<()> {
        let asked = Instant::now();
        let found = within(self.0.deadline, self.finds_the_test_file()).await.map_err(|error| format!("{error:#}"));
        let last = Asked { asked, answered: Instant::now(), found: found.clone() };
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
        found.map_err(|why| anyhow!(why))
    }

    async fn finds_the_test_file(&self) -> anyhow::Result<()> {
        match clamd::scan(&self.0.clamd, EICAR.concat().as_bytes()).await? {
            Report::Found(name) if name.to_ascii_lowercase().contains(NAME) => Ok(()),
            Report::Found(name) => bail!("clamd takes the EICAR test file for {name}"),
            _ => bail!("clamd does not find the EICAR test file: its database is empty or damaged"),
        }
    }

    fn last(&self) -> Option<Asked> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn within<T>(limit: Duration, what: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(limit, what).await.map_err(|_| anyhow!("clamd did not answer within {limit:?}"))?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    /// A clamd that can be made to forget, and counts.
    #[derive(Default)]
    struct Fake {
        forgetful: AtomicBool,
        questions: AtomicUsize,
        scans: AtomicUsize,
    }

    impl Fake {
        fn start(proof: Duration) -> (Arc<Self>, Scanner) {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let clamd = Clamd::Tcp(listener.local_addr().unwrap());
            let fake = Arc::new(Self::default());
            let served = Arc::clone(&fake);
            std::thread::spawn(move || listener.incoming().for_each(|stream| served.serve(&mut stream.unwrap())));
            let inner = Inner {
                clamd,
                deadline: Duration::from_secs(20),
                proof,
                asking: tokio::sync::Mutex::new(()),
                last: Mutex::new(None),
            };
            (fake, Scanner(Arc::new(inner)))
        }

        fn serve(&self, stream: &mut TcpStream) {
            let mut command = Vec::new();
            while command.last() != Some(&0) {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                command.extend(byte);
            }
            if command == b"zPING\0" {
                return stream.write_all(b"PONG\0").unwrap();
            }
            let mut body = Vec::new();
            loop {
                let mut length = [0; 4];
                stream.read_exact(&mut length).unwrap();
                let mut piece = vec![0; u32::from_be_bytes(length) as usize];
                stream.read_exact(&mut piece).unwrap();
                if piece.is_empty() {
                    break;
                }
                body.extend(piece);
            }
            let is_question = body == EICAR.concat().into_bytes();
            if is_question { &self.questions } else { &self.scans }.fetch_add(1, Ordering::SeqCst);
            let finds = is_question && !self.forgetful.load(Ordering::SeqCst);
            let said: &[u8] = if finds { b"stream: Win.Test.EICAR_HDB-1 FOUND\0" } else { b"stream: OK\0" };
            stream.write_all(said).unwrap();
        }

        fn counts(&self) -> (usize, usize) {
            (self.questions.load(Ordering::SeqCst), self.scans.load(Ordering::SeqCst))
        }
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn many_mails_need_one_proof() {
        let (fake, scanner) = Fake::start(LONG);
        let scans = (0..20).map(|_| scanner.scan(b"mail"));
        assert!(futures::future::join_all(scans).await.into_iter().all(|report| report.unwrap() == Report::Clean));
        for _ in 0..20 {
            assert_eq!(scanner.scan(b"mail").await.unwrap(), Report::Clean);
        }
        assert_eq!(fake.counts(), (1, 40));
    }

    #[tokio::test]
    async fn an_old_proof_does_not_count() {
        let (fake, scanner) = Fake::start(Duration::ZERO);
        assert_eq!(scanner.scan(b"mail").await.unwrap(), Report::Clean);
        assert_eq!(fake.counts(), (2, 1), "once before the scan, once after it");
    }

    #[tokio::test]
    async fn nothing_is_clean_to_a_scanner_that_knows_nothing() {
        let (fake, scanner) = Fake::start(LONG);
        fake.forgetful.store(true, Ordering::SeqCst);
        let scans = (0..20).map(|_| scanner.scan(b"mail"));
        for report in futures::future::join_all(scans).await {
            assert!(report.unwrap_err().to_string().contains("does not find the EICAR test file"));
        }
        assert_eq!(fake.counts(), (1, 0), "those who wait have the answer, too");
        fake.forgetful.store(false, Ordering::SeqCst);
        assert_eq!(scanner.scan(b"mail").await.unwrap(), Report::Clean);
    }

    #[tokio::test]
    async fn who_forgets_is_not_believed_any_more() {
        let (fake, scanner) = Fake::start(LONG);
        scanner.probe(LONG).await.unwrap();
        assert_eq!(scanner.scan(b"mail").await.unwrap(), Report::Clean);
        fake.forgetful.store(true, Ordering::SeqCst);
        assert!(scanner.probe(LONG).await.is_err());
        assert!(scanner.scan(b"mail").await.is_err());
        assert_eq!(fake.counts(), (3, 1));
    }
}
