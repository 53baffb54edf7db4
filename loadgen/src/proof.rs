//! The proof: every mailbox is read back, and each copy goes into the books.
//!
//! First it is patient: it looks for marks only, where something is missing, until nothing is, or nothing more comes.
//! Then everything is read once, whole: what was there and is no more is lost. It reads also who was sent nothing, and
//! mailboxes into which nothing is delivered. A mailbox of which not everything could be read was not read.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::books::{Books, Copy, Place};
use crate::imap::{Imap, Response};
use crate::mark::Span;
use crate::pop3::{Part, Pop3};

/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(300);
/// Accounts that are read at once.
const AT_ONCE: usize = 8;
/// The field by which held mail says for whom it is.
const HELD_FOR: &str = "X-Chainmail-Held-For: ";

/// A server from which mailboxes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    /// All mailboxes.
    Imap(SocketAddr),
    /// INBOX.
    Pop3(SocketAddr),
}

/// How mailboxes are read.
#[derive(Debug, Clone)]
pub(crate) struct Readers {
    /// Where they are read.
    pub(crate) server: Server,
    /// Everybody's password.
    pub(crate) password: String,
    /// The account with the held mail, and its password.
    pub(crate) quarantine: Option<(String, String)>,
    /// It is over when for so long nothing more has come.
    pub(crate) settle: Duration,
    /// When nothing is missing, so long is waited for what may come twice.
    pub(crate) linger: Duration,
    /// What digests are of.
    pub(crate) span: Span,
}

/// An account that is read, and how far each of its mailboxes was looked at.
#[derive(Debug, Clone)]
struct Account {
    address: String,
    password: String,
    is_quarantine: bool,
    /// The next UID of INBOX and Junk, whose numbers hold for so long (RFC 3501 section 2.3.1.1).
    next: [(u32, u32); 2],
}

/// How much of an account is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// The marks that are new in INBOX and Junk.
    Marks,
    /// Every message of every mailbox.
    Whole,
}

/// What was found in an account.
#[derive(Debug, Default)]
struct Found {
    /// Copies, as they go into the books: mail, recipient, copy.
    copies: Vec<(String, String, Copy)>,
    /// Messages without a mark: mail of others, or a copy whose mark was damaged.
    unmarked: u64,
}

impl Found {
    fn take(&mut self, copy: Option<(String, String, Copy)>) {
        match copy {
            Some(copy) => self.copies.push(copy),
            None => self.unmarked += 1,
        }
    }
}

/// What came of reading an account.
type Read = (Account, anyhow::Result<Found>);

/// Reads all mailboxes into the books. Says which could not be read.
pub(crate) async fn prove(readers: &Readers, books: &Mutex<Books>) -> Vec<String> {
    let readers = Arc::new(readers.clone());
    let accounts = accounts(&readers, &lock(books));
    settle(&readers, books, accounts.clone()).await;
    tokio::time::sleep(readers.linger).await;
    let (mut waiting, mut last_new) = (accounts, Instant::now());
    loop {
        let before = waiting.len();
        let mut unread = Vec::new();
        for (account, found) in round(&readers, waiting, Depth::Whole).await {
            match found {
                Ok(found) => {
                    let mut books = lock(books);
                    books.unmarked += found.unmarked;
                    found.copies.into_iter().for_each(|(id, to, copy)| books.found(&id, &to, copy));
                }
                Err(error) => unread.push((account, error)),
            }
        }
        if unread.len() < before {
            last_new = Instant::now();
        }
        if unread.is_empty() || last_new.elapsed() > readers.settle {
            return unread.into_iter().map(|(account, why)| format!("{}: {why:#}", account.address)).collect();
        }
        waiting = unread.into_iter().map(|(account, _)| account).collect();
        tokio::time::sleep(PAUSE).await;
    }
}

fn accounts(readers: &Readers, books: &Books) -> Vec<Account> {
    let account = |address: String, password: &str, is_quarantine| {
        let password = password.to_owned();
        Account { address, password, is_quarantine, next: Default::default() }
    };
    let people = books.people().into_iter().map(|address| account(address, &readers.password, false));
    let held = readers.quarantine.iter().map(|(address, password)| account(address.clone(), password, true));
    people.chain(held).collect()
}

/// Looks for marks until nothing is missing, or for a while nothing more has come.
async fn settle(readers: &Arc<Readers>, books: &Mutex<Books>, mut accounts: Vec<Account>) {
    let (mut seen, mut last_new, mut least) = (HashSet::new(), Instant::now(), usize::MAX);
    loop {
        let missing = lock(books).missing(&seen);
        let count = missing.values().sum();
        if count < least {
            (last_new, least) = (Instant::now(), count);
        }
        if count == 0 || last_new.elapsed() > readers.settle {
            return;
        }
        // Who misses nothing is left in peace: a login costs the chain more than a mail does.
        let is_wanted = |account: &Account| account.is_quarantine || missing.contains_key(&account.address);
        let (wanted, mut others): (Vec<_>, Vec<_>) = accounts.into_iter().partition(is_wanted);
        for (account, found) in round(readers, wanted, Depth::Marks).await {
            let copies = found.into_iter().flat_map(|found| found.copies);
            seen.extend(copies.map(|(id, to, _)| (id, to)));
            others.push(account);
        }
        accounts = others;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Reads each of the accounts.
async fn round(readers: &Arc<Readers>, mut waiting: Vec<Account>, depth: Depth) -> Vec<Read> {
    let (mut reading, mut names, mut done) = (JoinSet::new(), HashMap::new(), Vec::new());
    loop {
        while reading.len() < AT_ONCE
            && let Some(mut account) = waiting.pop()
        {
            let (readers, before) = (Arc::clone(readers), account.clone());
            let task = reading.spawn(async move {
                let found = read(&readers, &mut account, depth).await;
                (account, found)
            });
            names.insert(task.id(), before);
        }
        match reading.join_next_with_id().await {
            None => return done,
            // What was read of an account that broke off is read again, and counted once.
            Some(Ok((id, (account, found)))) => {
                let before = names.remove(&id).filter(|_| found.is_err());
                done.push((before.unwrap_or(account), found));
            }
            Some(Err(error)) => {
                let panicked = anyhow::anyhow!("reading it panicked");
                done.extend(names.remove(&error.id()).map(|account| (account, Err(panicked))));
            }
        }
    }
}

async fn read(readers: &Readers, account: &mut Account, depth: Depth) -> anyhow::Result<Found> {
    let server = match readers.server {
        Server::Imap(server) => server,
        Server::Pop3(server) => return over_pop3(server, readers.span, account, depth).await,
    };
    let mut imap = Imap::login(server, &account.address, &account.password).await?;
    let mut found = Found::default();
    if depth == Depth::Marks {
        for (index, mailbox) in ["INBOX", "Junk"].into_iter().enumerate() {
            marks(&mut imap, readers, account, index, mailbox, &mut found).await?;
        }
        return Ok(found);
    }
    let mailboxes = imap.mailboxes().await?;
    ensure!(mailboxes.iter().any(|name| name.eq_ignore_ascii_case("INBOX")), "there is no INBOX");
    for mailbox in mailboxes {
        let place = match mailbox.as_str() {
            _ if account.is_quarantine => Place::Held,
            "Junk" => Place::Junk,
            name if name.eq_ignore_ascii_case("INBOX") => Place::Inbox,
            _ => Place::Elsewhere,
        };
        whole(&mut imap, readers, account, &mailbox, place, &mut found).await?;
    }
    Ok(found)
}

/// The marks that are new in a mailbox.
async fn marks(
    imap: &mut Imap,
    readers: &Readers,
    account: &mut Account,
    index: usize,
    mailbox: &str,
    found: &mut Found,
) -> anyhow::Result<()> {
    let Some(opened) = imap.examine(mailbox).await?.filter(|opened| opened.exists > 0) else { return Ok(()) };
    let (validity, next) = account.next[index];
    let from = if validity == opened.validity { next.max(1) } else { 1 };
    let mut next = from;
    let each = |response: Response| {
        // The last message comes whatever number is asked for.
        let Some(uid) = response.uid().filter(|uid| *uid >= from) else { return };
        let Some(mail) = response.literals.first() else { return };
        next = next.max(uid + 1);
        found.take(copy(readers.span, mail, account.is_quarantine, &account.address, Place::Inbox));
    };
    let fields = "BODY.PEEK[HEADER.FIELDS (X-Chainmail-Held-For X-Loadgen)]";
    ensure!(imap.command(&format!("UID FETCH {from}:* (UID {fields})"), each).await?, "{mailbox} could not be read");
    account.next[index] = (opened.validity, next);
    Ok(())
}

/// Every message of a mailbox.
async fn whole(
    imap: &mut Imap,
    readers: &Readers,
    account: &Account,
    mailbox: &str,
    place: Place,
    found: &mut Found,
) -> anyhow::Result<()> {
    let opened = imap.examine(mailbox).await?.with_context(|| format!("{mailbox} cannot be opened"))?;
    if opened.exists == 0 {
        return Ok(());
    }
    let mut read = 0;
    let each = |response: Response| {
        if let Some(mail) = response.literals.first() {
            read += 1;
            found.take(copy(readers.span, mail, account.is_quarantine, &account.address, place));
        }
    };
    let is_done = imap.command("UID FETCH 1:* (UID BODY.PEEK[])", each).await?;
    if !is_done || read < opened.exists {
        bail!("of {} messages in {mailbox}, {read} could be read", opened.exists);
    }
    Ok(())
}

/// What POP3 shows of an account. Its numbers hold as long as nobody deletes anything, which is enough for marks.
async fn over_pop3(server: SocketAddr, span: Span, account: &mut Account, depth: Depth) -> anyhow::Result<Found> {
    let mut pop3 = Pop3::login(server, &account.address, &account.password).await?;
    let count = pop3.count().await?;
    let place = if account.is_quarantine { Place::Held } else { Place::Inbox };
    let (from, part) = match depth {
        Depth::Marks => (account.next[0].1.max(1), Part::Header),
        Depth::Whole => (1, Part::Whole),
    };
    let mut found = Found::default();
    for number in from..=count {
        let mail = pop3.message(number, part).await?;
        found.take(copy(span, &mail, account.is_quarantine, &account.address, place));
    }
    pop3.quit().await?;
    account.next[0].1 = count + 1;
    Ok(found)
}

/// What a message is to the books.
fn copy(span: Span, mail: &[u8], is_quarantine: bool, owner: &str, place: Place) -> Option<(String, String, Copy)> {
    let mark = span.find(mail)?;
    let held_for = if is_quarantine { held_for(mail) } else { None };
    // Held mail that does not say for whom is the quarantine's own: it strayed there.
    let to = held_for.unwrap_or_else(|| owner.to_owned());
    Some((mark.id, to, Copy { place, digest: mark.digest }))
}

/// For whom a mail is held, as the chain has written it before the mail.
fn held_for(mail: &[u8]) -> Option<String> {
    let at = memchr::memmem::find(mail, HELD_FOR.as_bytes())? + HELD_FOR.len();
    let end = memchr::memchr(b'\r', &mail[at..])? + at;
    Some(String::from_utf8_lossy(&mail[at..end]).to_lowercase())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::books::{Fate, Verdict};
    use crate::mark::mark;
    use crate::mix::Kind;

    /// A store with mailboxes as they are, and what it does wrong.
    #[derive(Default)]
    struct Store {
        mailboxes: BTreeMap<(&'static str, &'static str), Vec<Vec<u8>>>,
        /// Who may not log in, so often.
        shut: (&'static str, usize),
        /// So many whole messages are broken off in the middle.
        cut: usize,
        /// The last message of each mailbox cannot be read, and nothing is said about that.
        silent: bool,
        /// What was there is no more once all marks were seen.
        forgets: bool,
    }

    impl Store {
        /// What is answered, and whether the connection goes on.
        fn answer(&mut self, user: &mut String, opened: &mut String, line: &str) -> (String, bool) {
            let (tag, command) = line.split_once(' ').unwrap();
            let word = |at| command.split('"').nth(at).unwrap_or_default().to_owned();
            let key = |(user, mailbox): (&str, &str)| {
                let keys = self.mailboxes.keys();
                keys.copied().find(|key| *key == (user, mailbox))
            };
            let ok = |untagged: &str| (format!("{untagged}{tag} OK done\r\n"), true);
            match command.split(' ').next().unwrap() {
                "LOGIN" => {
                    *user = word(1);
                    if *user == self.shut.0 && self.shut.1 > 0 {
                        self.shut.1 -= 1;
                        return (format!("{tag} NO not now\r\n"), true);
                    }
                    ok("")
                }
                "LIST" => {
                    if self.forgets {
                        self.mailboxes.clear();
                    }
                    let own = self.mailboxes.keys().filter(|(owner, name)| owner == user && *name != "INBOX");
                    let own: String = own.map(|(_, name)| format!("* LIST () \"/\" \"{name}\"\r\n")).collect();
                    ok(&format!("* LIST () \"/\" INBOX\r\n{own}"))
                }
                "EXAMINE" => {
                    *opened = word(1);
                    let count = key((user, opened)).map_or(0, |key| self.mailboxes[&key].len());
                    ok(&format!("* {count} EXISTS\r\n* OK [UIDVALIDITY 1] a\r\n"))
                }
                "UID" => {
                    let Some(key) = key((user, opened)) else { return ok("") };
                    let is_whole = command.contains("BODY.PEEK[]");
                    let mails = &self.mailboxes[&key];
                    let count = mails.len() - usize::from(is_whole && self.silent);
                    let mut fetched = String::new();
                    for (index, mail) in mails.iter().enumerate().take(count) {
                        let (uid, mail) = (index + 1, std::str::from_utf8(mail).unwrap());
                        fetched += &format!("* {uid} FETCH (UID {uid} BODY[] {{{}}}\r\n{mail})\r\n", mail.len());
                    }
                    if is_whole && self.cut > 0 {
                        self.cut -= 1;
                        return (fetched[..fetched.len() - 5].to_owned(), false);
                    }
                    ok(&fetched)
                }
                _ => panic!("{line}"),
            }
        }
    }

    async fn serve(store: Arc<Mutex<Store>>, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let (mut user, mut opened, mut line) = (String::new(), String::new(), String::new());
        stream.get_mut().write_all(b"* OK here\r\n").await.unwrap();
        while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
            let (answer, goes_on) = lock(&store).answer(&mut user, &mut opened, line.trim_end());
            stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
            if !goes_on {
                return;
            }
            line.clear();
        }
    }

    /// Two mails were kept, for a@x and b@x; c@x was sent nothing. What is said of this store, and who was not read.
    async fn prove_with(store: Store, settle: Duration) -> (Verdict, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let readers = Readers {
            server: Server::Imap(listener.local_addr().unwrap()),
            password: "p".into(),
            quarantine: Some(("q@x".into(), "p".into())),
            settle,
            linger: Duration::ZERO,
            span: Span::Whole,
        };
        let mut books = Books::default();
        books.person("c@x");
        for (id, to) in [("r.1", "a@x"), ("r.2", "b@x")] {
            books.begin(id, mark(Span::Whole, id, TEXT).1, Kind::Plain, [to.to_owned()]);
            books.end(id, to, Fate::Kept);
        }
        let (store, books) = (Arc::new(Mutex::new(store)), Mutex::new(books));
        let mut connections = JoinSet::new();
        let unread = tokio::select! {
            unread = prove(&readers, &books) => unread,
            _ = async {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    connections.spawn(serve(Arc::clone(&store), stream));
                }
            } => vec![],
        };
        let verdict = lock(&books).verdict();
        (verdict, unread)
    }

    /// Time for what comes right; none for what does not.
    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(100);
    const TEXT: &[u8] = b"Subject: a\r\n\r\nb\r\n";

    fn mail(front: &str, id: &str) -> Vec<u8> {
        [front.as_bytes(), &mark(Span::Whole, id, TEXT).0].concat()
    }

    fn store(more: &[(&'static str, &'static str, Vec<u8>)]) -> Store {
        let mut store = Store::default();
        let both = [("a@x", "INBOX", mail("A: b\r\n", "r.1")), ("b@x", "Junk", mail("A: b\r\n", "r.2"))];
        for (user, mailbox, mail) in both.iter().chain(more) {
            store.mailboxes.entry((user, mailbox)).or_default().push(mail.clone());
        }
        store
    }

    #[track_caller]
    fn told(verdict: &Verdict) -> String {
        let told = verdict.to_json();
        let names = told.as_object().unwrap().iter().filter(|(_, value)| value.as_u64().is_some_and(|count| count > 0));
        names.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    }

    #[tokio::test]
    async fn what_is_found_where() {
        let held = "X-Chainmail-Held: virus\r\nX-Chainmail-Held-For: B@x\r\n";
        for (more, want) in [
            (vec![], "delivered 2, junk 1"),
            (vec![("a@x", "INBOX", mail("", "r.1"))], "delivered 2, doubled 1, junk 1"),
            (vec![("a@x", "Archive", mail("", "r.1"))], "delivered 2, doubled 1, junk 1, stray 1"),
            (vec![("q@x", "INBOX", mail(held, "r.2"))], "delivered 2, doubled 1, junk 1"),
            // Somebody to whom nothing was sent, and the quarantine without a word for whom.
            (vec![("c@x", "INBOX", mail("", "r.1"))], "delivered 2, junk 1, stray 1"),
            (vec![("c@x", "Sent", mail("", "r.1"))], "delivered 2, junk 1, stray 1"),
            (vec![("q@x", "INBOX", mail("", "r.2"))], "delivered 2, junk 1, stray 1"),
            // Mail of others, and of other runs.
            (vec![("c@x", "INBOX", mail("", "s.1"))], "delivered 2, junk 1"),
            (vec![("a@x", "INBOX", TEXT.to_vec())], "delivered 2, junk 1, unmarked 1"),
            // Beside a whole copy this one was not seen at all.
            (vec![("a@x", "INBOX", [b"X-Loadgen: r.1\r\n", TEXT].concat())], "delivered 2, junk 1, unmarked 1"),
        ] {
            let (verdict, unread) = prove_with(store(&more), LONG).await;
            assert_eq!((told(&verdict).as_str(), unread.len()), (want, 0), "{more:?}");
        }
        let mut held_only = store(&[("q@x", "INBOX", mail(held, "r.2"))]);
        held_only.mailboxes.remove(&("b@x", "Junk"));
        assert_eq!(told(&prove_with(held_only, LONG).await.0), "clean_withheld 1, delivered 1, held 1");
    }

    #[tokio::test]
    async fn a_mailbox_that_is_not_read_whole_is_not_read() {
        // Twice is what a server does that is being started anew.
        for (shut, cut) in [(("c@x", 2), 0), (("a@x", 2), 0), (("", 0), 2)] {
            let (verdict, unread) = prove_with(Store { shut, cut, ..store(&[]) }, LONG).await;
            assert_eq!((told(&verdict).as_str(), unread), ("delivered 2, junk 1", vec![]), "{shut:?} {cut}");
        }
        for (shut, cut, silent, want) in [
            (("c@x", usize::MAX), 0, false, 1),
            (("q@x", usize::MAX), 0, false, 1),
            (("a@x", usize::MAX), 0, false, 1),
            (("", 0), usize::MAX, false, 2),
            (("", 0), 0, true, 2),
        ] {
            let (verdict, unread) = prove_with(Store { shut, cut, silent, ..store(&[]) }, SHORT).await;
            assert_eq!(unread.len(), want, "{shut:?} {cut} {silent}: {unread:?}");
            assert!(verdict.doubled == 0, "what was read in vain counted: {verdict:?}");
        }
    }

    #[tokio::test]
    async fn what_was_seen_and_is_no_more_is_lost() {
        let (verdict, unread) = prove_with(Store { forgets: true, ..store(&[]) }, LONG).await;
        assert_eq!((verdict.delivered, verdict.lost, unread.len()), (0, 2, 0), "{verdict:?}");
    }
}
