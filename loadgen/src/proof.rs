//! The proof: every mailbox is read back, and each copy goes into the books.
//!
//! It is patient with mail on its way and with servers that are just being started, and gives up only when for a while
//! nothing more has come.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::books::{Books, Copy, Place};
use crate::imap::{Imap, Response};
use crate::mark::Span;

/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(300);
/// Accounts that are read at once.
const AT_ONCE: usize = 8;

/// How mailboxes are read.
#[derive(Debug, Clone)]
pub(crate) struct Readers {
    /// The IMAP server.
    pub(crate) server: SocketAddr,
    /// Everybody's password.
    pub(crate) password: String,
    /// The account with the held mail, and its password.
    pub(crate) quarantine: Option<(String, String)>,
    /// It is over when for so long nothing more has come.
    pub(crate) settle: Duration,
    /// When nothing is missing, one more look after so long finds what came twice.
    pub(crate) linger: Duration,
    /// What digests are of.
    pub(crate) span: Span,
}

/// An account that is read, and how far each of its mailboxes was.
#[derive(Debug, Clone)]
struct Account {
    address: String,
    password: String,
    is_quarantine: bool,
    /// The next UID of INBOX and Junk.
    next: [u32; 2],
}

/// A copy, as it goes into the books: mail, recipient, copy.
type Found = (String, String, Copy);

/// Reads all mailboxes into the books until nothing is missing, or nothing more comes. Says which could not be read.
pub(crate) async fn prove(readers: &Readers, books: &Mutex<Books>) -> Vec<String> {
    let people = lock(books).people();
    let quarantine = readers.quarantine.clone();
    let person = |address| Account { address, password: readers.password.clone(), is_quarantine: false, next: [1; 2] };
    let mut accounts: Vec<Account> = people.into_iter().map(person).collect();
    accounts.extend(quarantine.map(|(address, password)| Account {
        address,
        password,
        is_quarantine: true,
        next: [1; 2],
    }));
    let (mut last_new, mut missing, mut last_look) = (Instant::now(), usize::MAX, false);
    loop {
        let unread = round(readers, books, &mut accounts).await;
        let now_missing = lock(books).missing();
        if now_missing < missing {
            (last_new, missing) = (Instant::now(), now_missing);
        }
        let is_complete = missing == 0 && unread.is_empty();
        if last_look || last_new.elapsed() > readers.settle {
            return unread.into_iter().map(|(who, why)| format!("{who}: {why}")).collect();
        }
        last_look = is_complete;
        tokio::time::sleep(if is_complete { readers.linger } else { PAUSE }).await;
    }
}

/// Reads what is new in every account. Gives those that could not be read, and why.
async fn round(readers: &Readers, books: &Mutex<Books>, accounts: &mut Vec<Account>) -> HashMap<String, String> {
    let (mut reading, mut unread, mut waiting) = (JoinSet::new(), HashMap::new(), std::mem::take(accounts));
    let readers = Arc::new(readers.clone());
    loop {
        while reading.len() < AT_ONCE
            && let Some(mut account) = waiting.pop()
        {
            let readers = Arc::clone(&readers);
            reading.spawn(async move {
                let found = Arc::new(Mutex::new(Vec::new()));
                let before = account.next;
                let read = read(&readers, &mut account, &found).await;
                if read.is_err() {
                    // What was read of an account that broke off is read again, and counted once.
                    account.next = before;
                }
                (account, read.map(|()| std::mem::take(&mut *lock(&found))))
            });
        }
        let Some(done) = reading.join_next().await else { return unread };
        let Ok((account, found)) = done else { continue };
        match found {
            Ok(found) => {
                let mut books = lock(books);
                found.into_iter().for_each(|(id, to, copy): Found| books.found(&id, &to, copy));
            }
            Err(error) => drop(unread.insert(account.address.clone(), format!("{error:#}"))),
        }
        accounts.push(account);
    }
}

async fn read(readers: &Readers, account: &mut Account, found: &Mutex<Vec<Found>>) -> anyhow::Result<()> {
    let mut imap = Imap::login(readers.server, &account.address, &account.password).await?;
    for (index, (mailbox, place)) in [("INBOX", Place::Inbox), ("Junk", Place::Junk)].into_iter().enumerate() {
        if imap.examine(mailbox).await?.is_none_or(|exists| exists == 0) {
            continue;
        }
        let (from, mut next) = (account.next[index], account.next[index]);
        let each = |response: Response| {
            // The last message comes whatever number is asked for.
            let Some(uid) = response.uid().filter(|uid| *uid >= from) else { return };
            let Some(mail) = response.literals.first() else { return };
            next = next.max(uid + 1);
            lock(found).extend(copy(readers.span, mail, account.is_quarantine, &account.address, place));
        };
        let done = imap.command(&format!("UID FETCH {from}:* (UID BODY.PEEK[])"), each).await?;
        if !done {
            anyhow::bail!("{mailbox} could not be read");
        }
        account.next[index] = next;
    }
    Ok(())
}

/// What a message is to the books.
fn copy(span: Span, mail: &[u8], is_quarantine: bool, owner: &str, place: Place) -> Option<Found> {
    let mark = span.find(mail)?;
    let copy = |place| Copy { place, digest: mark.digest };
    if !is_quarantine {
        return Some((mark.id.clone(), owner.to_owned(), copy(place)));
    }
    let field = b"X-Chainmail-Held-For: ";
    let at = memchr::memmem::find(mail, field)? + field.len();
    let end = memchr::memchr(b'\r', &mail[at..])? + at;
    Some((mark.id.clone(), String::from_utf8_lossy(&mail[at..end]).into_owned(), copy(Place::Held)))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::mark::mark;

    #[test]
    fn held_mail_counts_for_whom_it_was() {
        let (mail, digest) = mark(Span::Whole, "r.1", b"Subject: a\r\n\r\nb\r\n");
        let found = |front: &str, is_quarantine| {
            copy(Span::Whole, &[front.as_bytes(), &mail].concat(), is_quarantine, "owner@x", Place::Inbox)
        };
        let copy = |place| Copy { place, digest };
        assert_eq!(found("A: b\r\n", false), Some(("r.1".into(), "owner@x".into(), copy(Place::Inbox))));
        let held = "X-Chainmail-Held: virus\r\nX-Chainmail-Held-For: a@x\r\n";
        assert_eq!(found(held, true), Some(("r.1".into(), "a@x".into(), copy(Place::Held))));
        assert_eq!(found("A: b\r\n", true), None);
    }
}
