//! Sends mail as an MTA does: what was not kept and not refused comes again, the same byte for byte.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::books::{Books, Fate};
use crate::ledger::Ledger;
use crate::mails::{Mail, Mails};
use crate::measure::Measure;
use crate::mix::Kind;
use crate::queue::{Letter, Queue};
use crate::slowest::Slow;
use crate::smtp::{Connection, Target, Trouble, Word};
use crate::sources::Sources;
use crate::watch::Awaited;

/// How often, and how long, a mail is tried again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retries {
    /// Before the second attempt; doubled each time,
    pub(crate) first: Duration,
    /// up to this.
    pub(crate) most: Duration,
    /// A mail that was due so long ago is given up: it has had no final word.
    pub(crate) give_up_after: Duration,
}

impl Retries {
    /// The wait before attempt number `attempts`, counted from one.
    fn wait(&self, attempts: u32) -> Duration {
        self.first.saturating_mul(1 << attempts.saturating_sub(1).min(20)).min(self.most)
    }
}

/// All that the senders of a run share.
pub(crate) struct Run {
    /// What is next.
    pub(crate) queue: Queue,
    /// What it is.
    pub(crate) mails: Mails,
    /// To whom.
    pub(crate) people: Vec<String>,
    /// Where it goes.
    pub(crate) target: Target,
    /// Where it comes from.
    pub(crate) sources: Sources,
    /// What comes again.
    pub(crate) retries: Retries,
    /// Mails on a connection; 0 is as many as the server bears.
    pub(crate) per_connection: u32,
    /// What was said.
    pub(crate) books: Mutex<Books>,
    /// The same, on disk.
    pub(crate) ledger: Ledger,
    /// How long it took.
    pub(crate) measure: Measure,
    /// Mails that a reader waits for.
    pub(crate) awaited: Awaited,
}

/// An open connection, and how it is used.
struct Line {
    connection: Connection,
    listed: bool,
    source: Option<IpAddr>,
    mails: u32,
}

impl Run {
    /// The books.
    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends until nothing is left. One connection at a time.
    ///
    /// # Errors
    /// When a mail cannot be had; no more are begun then.
    pub(crate) async fn send(self: Arc<Self>, sender: usize) -> anyhow::Result<()> {
        let (mut line, mut turn) = (None, sender);
        while let Some(mut letter) = self.queue.take().await {
            let mail = self.compose(letter.number).inspect_err(|_| {
                self.queue.end();
                self.queue.done();
            })?;
            if self.queue.is_timed() {
                tokio::time::sleep_until(letter.due).await;
            } else if letter.attempts == 0 {
                letter.due = Instant::now();
            }
            turn += 1;
            self.attempt(&mut line, letter, &mail, turn).await;
        }
        if let Some(Line { connection, .. }) = line {
            connection.quit().await;
        }
        Ok(())
    }

    fn compose(&self, number: u64) -> anyhow::Result<Mail> {
        // A large attachment takes long enough for others to notice.
        if self.mails.mix.draft(number).attachment.is_some() {
            return tokio::task::block_in_place(|| self.mails.mail(number));
        }
        self.mails.mail(number)
    }

    async fn attempt(&self, line: &mut Option<Line>, letter: Letter, mail: &Mail, turn: usize) {
        let numbers = letter.to.clone().unwrap_or_else(|| mail.to.clone());
        let to: Vec<&str> = numbers.iter().map(|number| self.people[*number as usize].as_str()).collect();
        if letter.attempts == 0 {
            self.books().begin(&mail.id, mail.digest, mail.kind, to.iter().map(|to| (*to).to_owned()));
            if !self.write(mail, &numbers) {
                self.queue.end();
                return self.queue.done();
            }
            if mail.kind == Kind::Plain {
                self.awaited.begin(&mail.id, &to, letter.due);
            }
            self.measure.note(|measured| {
                measured.begun += 1;
                measured.late.note(letter.due.elapsed());
            });
        }
        self.choose_line(line, &letter, mail).await;
        let source = match line {
            Some(line) => line.source,
            None => letter.source.or_else(|| if mail.listed { self.sources.listed() } else { self.sources.usual() }),
        };
        let words = match self.transact(line, mail, &to, source, turn).await {
            Ok(words) => words,
            Err(trouble) => {
                *line = None;
                vec![trouble.word(); to.len()]
            }
        };
        let left = self.note(mail, &numbers, &words);
        if left.is_empty() {
            self.end(&letter, mail, &words);
            return self.queue.done();
        }
        let attempts = letter.attempts + 1;
        let at = Instant::now() + self.retries.wait(attempts);
        if at > letter.due + self.retries.give_up_after {
            let latency = letter.due.elapsed();
            let slow = || self.slow(letter.due, latency, &mail.id, format!("none, after {attempts} attempts"));
            self.measure.note(|measured| {
                measured.given_up += 1;
                measured.slow_answers.note(latency, slow);
            });
            self.awaited.forget(&mail.id, left.iter().map(|number| self.people[*number as usize].as_str()));
            return self.queue.done();
        }
        self.queue.defer(Letter { to: Some(left), attempts, source, ..letter }, at);
    }

    /// Takes leave of a connection that comes from elsewhere than the mail has to.
    async fn choose_line(&self, line: &mut Option<Line>, letter: &Letter, mail: &Mail) {
        let is_elsewhere =
            |line: &Line| line.listed != mail.listed || letter.source.is_some_and(|source| line.source != Some(source));
        if line.as_ref().is_some_and(is_elsewhere)
            && let Some(Line { connection, .. }) = line.take()
        {
            connection.quit().await;
        }
    }

    /// Writes how a mail stands for these recipients into the ledger. Whether it stands there.
    fn write(&self, mail: &Mail, numbers: &[u32]) -> bool {
        let books = self.books();
        let lines: String = numbers.iter().map(|number| books.line(&mail.id, &self.people[*number as usize])).collect();
        drop(books);
        self.ledger.note(&lines)
    }

    /// A mail that was waited for, so long.
    pub(crate) fn slow(&self, due: Instant, latency: Duration, mail: &str, answer: String) -> Slow {
        let now = runtime::clock::now().0;
        let ago = u64::try_from(due.elapsed().as_millis()).unwrap_or(u64::MAX);
        let after = due.saturating_duration_since(self.queue.start());
        Slow { latency, due: after, at: now.saturating_sub(ago), mail: mail.to_owned(), answer }
    }

    /// Notes what was said, and gives the recipients for whom nothing final was.
    fn note(&self, mail: &Mail, numbers: &[u32], words: &[Word]) -> Vec<u32> {
        let mut left = Vec::new();
        let mut books = self.books();
        for (number, word) in numbers.iter().zip(words) {
            let to = &self.people[*number as usize];
            match word {
                Word::Kept => books.end(&mail.id, to, Fate::Kept),
                Word::Refused(reply) => {
                    books.reply(reply);
                    books.end(&mail.id, to, Fate::Refused);
                    self.awaited.forget(&mail.id, [to.as_str()]);
                }
                Word::Later(reply) => {
                    books.reply(reply);
                    left.push(*number);
                }
            }
        }
        drop(books);
        if !self.write(mail, numbers) {
            self.queue.end();
        }
        if !left.is_empty() {
            self.measure.note(|measured| measured.second(self.queue.start().elapsed()).deferred += 1);
        }
        left
    }

    /// Counts a mail once, when all its recipients have their final word; with the last attempt's.
    fn end(&self, letter: &Letter, mail: &Mail, words: &[Word]) {
        let now = Instant::now();
        let (after, latency) = (now - self.queue.start(), now - letter.due);
        let has = |fate| {
            let books = self.books();
            mail.to.iter().any(|number| books.fate(&mail.id, &self.people[*number as usize]) == Some(&fate))
        };
        let (kept, refused) = (has(Fate::Kept), has(Fate::Refused));
        let no =
            words.iter().find_map(|word| if let Word::Refused(reply) = word { Some(reply.as_str()) } else { None });
        let said = if kept { "250" } else { no.unwrap_or("5xx") };
        self.measure.note(|measured| {
            if kept {
                measured.kept(after, latency, mail.stuffed.len());
            }
            let attempt = letter.attempts + 1;
            let slow = || self.slow(letter.due, latency, &mail.id, format!("{said}, at attempt {attempt}"));
            measured.answered(latency, slow);
            measured.second(after).refused += u64::from(refused);
        });
    }

    async fn transact(
        &self,
        line: &mut Option<Line>,
        mail: &Mail,
        to: &[&str],
        source: Option<IpAddr>,
        turn: usize,
    ) -> Result<Vec<Word>, Trouble> {
        let (open, words) = loop {
            let open = match line {
                Some(open) => open,
                None => {
                    let begun = Instant::now();
                    let connection = Connection::open(&self.target, source, turn).await?;
                    self.measure.note(|measured| measured.connect.note(begun.elapsed()));
                    line.insert(Line { connection, listed: mail.listed, source, mails: 0 })
                }
            };
            match open.connection.send(&mail.from, to, &mail.stuffed, mail.slow).await {
                // The server bears no more mails on a connection, or not for so long: an MTA makes another one at once.
                Err(_) if open.mails > 0 && open.connection.was_over() => *line = None,
                words => break (open, words?),
            }
        };
        open.mails += 1;
        // After a command that failed the transaction stands half begun: an MTA would say RSET, or take leave as here.
        let is_full = self.per_connection > 0 && open.mails >= self.per_connection;
        if (is_full || words.iter().any(|word| *word != Word::Kept))
            && let Some(Line { connection, .. }) = line.take()
        {
            connection.quit().await;
        }
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_doubled() {
        let second = Duration::from_secs(1);
        let retries = Retries { first: second, most: 30 * second, give_up_after: 600 * second };
        let waits = [1, 2, 3, 5, 6, 1000].map(|attempts| retries.wait(attempts).as_secs());
        assert_eq!(waits, [1, 2, 4, 16, 30, 30]);
    }
}
