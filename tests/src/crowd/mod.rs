//! Many IMAP clients on the same few mailboxes, each doing what it likes. Whatever one of them is told must agree with
//! what it was told before and with what any other was promised; and when all are still, all must see the same.
//!
//! Each flag of a message has one client that writes it, so that its state is known without knowing who came first.
//! Whoever breaks off leaves things of which nobody knows whether they happened: these alone may be either way.

pub mod ledger;
pub mod member;
pub mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use ledger::Ledger;
use member::{Member, Trouble};

use crate::chain::wait_for;
use crate::imaptest::Session;

/// Clients at once.
const MEMBERS: usize = 6;

const MAILBOXES: [&str; 3] = ["crowd-a", "crowd-b", "INBOX"];

/// A server with an account for all of them.
pub struct Place<'a> {
    pub port: u16,
    pub user: &'a str,
    pub password: &'a str,
    /// Whether it tells each session of the keywords that others write. It should (RFC 3501 section 6.4.6); Dovecot 2.3
    /// now and then does not say that one was taken away.
    pub tells_keywords: bool,
}

impl Place<'_> {
    fn login(&self) -> String {
        format!("LOGIN {} {}", self.user, self.password)
    }
}

/// Whether the server is killed now and then.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Lives,
    Dies,
}

/// The seed of this run: that which `CHAINMAIL_SEED` names, or a new one. Clients run at once, so the same seed gives
/// the same wishes, and not always the same order.
fn seed() -> u64 {
    let named = std::env::var("CHAINMAIL_SEED").ok().map(|seed| seed.parse().expect("CHAINMAIL_SEED is a number"));
    let seed = named.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("CHAINMAIL_SEED={seed}");
    seed
}

/// Lets the crowd loose for a while, with `meanwhile` beside it, and then compares everything.
pub fn run(place: &Place<'_>, lasts: Duration, server: Server, meanwhile: impl FnOnce()) {
    let seed = seed();
    let mut first = Session::connect(place.port).unwrap();
    first.must(place.login().as_bytes()).unwrap();
    for mailbox in MAILBOXES.iter().filter(|mailbox| **mailbox != "INBOX") {
        first.must(format!("CREATE {mailbox}").as_bytes()).unwrap();
    }
    let (ledger, stop) = (Mutex::new(Ledger::default()), AtomicBool::new(false));
    let mut members: Vec<Member<'_>> = std::thread::scope(|scope| {
        let (ledger, stop) = (&ledger, &stop);
        let live = |number| scope.spawn(move || live(place, number, seed, ledger, stop, server));
        let members: Vec<_> = (0..MEMBERS).map(live).collect();
        let begun = Instant::now();
        meanwhile();
        // Not for a condition: the crowd is loose for so long.
        std::thread::sleep(lasts.saturating_sub(begun.elapsed()));
        stop.store(true, Ordering::Relaxed);
        members.into_iter().map(|member| member.join().unwrap()).collect()
    });
    for member in &mut members {
        settle(member);
    }
    compare(place, &ledger, &mut members);
}

/// A client's life, from one connection to the next.
fn live<'a>(
    place: &Place<'_>,
    number: usize,
    seed: u64,
    ledger: &'a Mutex<Ledger>,
    stop: &AtomicBool,
    server: Server,
) -> Member<'a> {
    let mut life = 0;
    let enter = |life: u64| {
        let random = StdRng::seed_from_u64(seed ^ (number as u64) << 32 ^ life << 48);
        Member::enter(place.port, &place.login(), number, ledger, random)
    };
    let mut member = told(enter(0));
    let begin = |member: &mut Member<'a>| {
        let mailbox = *MAILBOXES.choose(member.random()).unwrap();
        member.select(mailbox)
    };
    let mut result = begin(&mut member);
    loop {
        match result {
            Ok(()) if stop.load(Ordering::Relaxed) => return member,
            Ok(()) => result = member.act(&MAILBOXES),
            Err(Trouble::Broken(_)) if server == Server::Dies => {
                life += 1;
                let mut next = None;
                wait_for("the server to be there again", || {
                    next = enter(life).ok();
                    next.is_some()
                });
                let mut next = next.unwrap();
                next.remembers(&mut member);
                member = next;
                result = begin(&mut member);
            }
            Err(trouble) => fail(&member, &trouble),
        }
    }
}

fn told<T>(result: Result<T, Trouble>) -> T {
    result.unwrap_or_else(|trouble| panic!("{trouble}"))
}

fn fail(member: &Member<'_>, trouble: &Trouble) -> ! {
    panic!("{}\n{trouble}", member.transcript())
}

/// Hears of everything that happened last.
fn settle(member: &mut Member<'_>) {
    for _ in 0..2 {
        if let Err(trouble) = member.noop() {
            fail(member, &trouble);
        }
    }
}

type Flags = BTreeMap<u32, BTreeSet<String>>;

/// All views against a new one of each mailbox, and that against what was promised.
fn compare(place: &Place<'_>, ledger: &Mutex<Ledger>, members: &mut [Member<'_>]) {
    let random = StdRng::seed_from_u64(0);
    let mut judge = told(Member::enter(place.port, &place.login(), MEMBERS, ledger, random));
    let (mut found, mut count) = (BTreeSet::new(), 0);
    for mailbox in MAILBOXES {
        if let Err(trouble) = judge.select(mailbox) {
            fail(&judge, &trouble);
        }
        if let Err(why) = ledger.lock().unwrap().final_state(mailbox, &judge.view) {
            fail(&judge, &Trouble::Wrong(why));
        }
        let truth = flags(&judge, place);
        for member in &mut *members {
            if member.mailbox == mailbox && flags(member, place) != truth {
                panic!("{}\nit has {:?}\nand should have {truth:?}", member.transcript(), flags(member, place));
            }
            match member.resync(mailbox) {
                Ok(Some(rows)) if told_flags(rows.clone(), place) != truth => {
                    panic!("{}\nby QRESYNC it has {rows:?}\nand should have {truth:?}", member.transcript());
                }
                Ok(_) => {}
                Err(trouble) => fail(member, &trouble),
            }
        }
        count += truth.len();
        found.extend(judge.view.rows.iter().filter_map(|row| row.marker.clone()));
    }
    let ledger = ledger.lock().unwrap();
    let lost: Vec<_> = ledger.moving.difference(&found).collect();
    assert!(lost.is_empty(), "neither here nor there: {lost:?}");
    println!("{} messages were made, {count} are left", ledger.made());
    assert!(ledger.made() > 20, "the crowd did nothing");
}

fn flags(member: &Member<'_>, place: &Place<'_>) -> Flags {
    let known = |row: &view::Row| (row.uid.expect("all were looked at"), row.flags.clone());
    told_flags(member.view.rows.iter().map(known).collect(), place)
}

/// Those flags that a server of this kind tells of.
fn told_flags(mut flags: Flags, place: &Place<'_>) -> Flags {
    if !place.tells_keywords {
        flags.values_mut().for_each(|flags| flags.retain(|flag| flag.starts_with('\\')));
    }
    flags
}
