//! Mailboxes as they are, shared by all who look at them: IMAP sessions and POP3.
//!
//! A view that is kept is brought up to date by what has changed since its MODSEQ: new messages, marks, tombstones.
//! What is not kept, and nobody has, is read whole. Which of both makes no difference but time: what counts is the
//! shard's database, and each look asks it for the mailbox's MODSEQ.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use runtime::config::ByteSize;
use rusqlite::Connection;
use wire::imap::{MessageRow, Rows, View, WeakRows};

use crate::shard::{self, Mailbox, REMEMBERED, Shard, Words, marks, reader};

/// Bytes of a view beside its messages.
const OVERHEAD: u64 = 200;
/// Those who bring different mailboxes up to date wait for each other only where they share one of these.
const TURNS: usize = 64;

/// The number of the shard, and the mailbox in it.
type Key = (u32, i64);

/// Which mailbox is looked at.
#[derive(Debug)]
pub(crate) enum Which {
    /// Of this account, with this name.
    Named(i64, String),
    /// With this number.
    Numbered(i64),
}

impl Which {
    fn find(&self, connection: &Connection) -> rusqlite::Result<Option<Mailbox>> {
        match self {
            Self::Named(account, name) => reader::named(connection, *account, name),
            Self::Numbered(mailbox) => reader::numbered(connection, *mailbox),
        }
    }
}

#[derive(Clone)]
struct Weigh;

impl Weighter<Key, View> for Weigh {
    fn weight(&self, _: &Key, view: &View) -> u64 {
        view.messages.bytes() as u64 + OVERHEAD
    }
}

/// The views that are kept.
#[derive(Clone)]
pub(crate) struct Views(Arc<Inner>);

struct Inner {
    kept: Cache<Key, View, Weigh>,
    /// The last view of each mailbox that anybody looks at, kept or not: readers of a mailbox that is too large to be
    /// kept would otherwise have a copy each.
    looked_at: Mutex<HashMap<Key, Seen>>,
    /// Whoever brings a view up to date: the others take what came of it, so that all share the same pieces.
    turns: [Mutex<()>; TURNS],
}

/// A view, as long as anybody has it.
struct Seen {
    uidvalidity: u32,
    uidnext: u32,
    modseq: u64,
    messages: WeakRows,
}

impl Seen {
    fn of(view: &View) -> Self {
        let View { uidvalidity, uidnext, modseq, .. } = *view;
        Self { uidvalidity, uidnext, modseq, messages: view.messages.downgrade() }
    }

    fn view(&self) -> Option<View> {
        let Self { uidvalidity, uidnext, modseq, .. } = *self;
        Some(View { uidvalidity, uidnext, modseq, messages: self.messages.upgrade()?, recent: uidnext })
    }
}

impl Views {
    pub(crate) fn new(size: ByteSize) -> Self {
        let items = usize::try_from(size.0 / 10_000).unwrap_or(usize::MAX).max(16);
        // In one piece: a view that is larger than a part of the cache would never be kept.
        let options = OptionsBuilder::new().estimated_items_capacity(items).weight_capacity(size.0).shards(1).build();
        let options = options.expect("both capacities are given");
        let kept = Cache::with_options(options, Weigh, DefaultHashBuilder::default(), DefaultLifecycle::default());
        Self(Arc::new(Inner { kept, looked_at: Mutex::default(), turns: std::array::from_fn(|_| Mutex::default()) }))
    }

    /// The mailbox and its number; none if there is none.
    pub(crate) async fn look(&self, shard: &Shard, which: Which) -> anyhow::Result<Option<(i64, View)>> {
        let (views, number) = (self.clone(), shard.number);
        shard.reader.ask(move |connection: &Connection, _: &Path| views.current(connection, number, &which)).await
    }

    fn current(&self, connection: &Connection, shard: u32, which: &Which) -> anyhow::Result<Option<(i64, View)>> {
        let Some(mailbox) = which.find(connection)? else { return Ok(None) };
        if let Some(view) = self.fresh((shard, mailbox.id), &mailbox) {
            return Ok(Some((mailbox.id, view)));
        }
        let turn = usize::try_from(mailbox.id.unsigned_abs()).unwrap_or(0) % TURNS;
        let _turn = self.0.turns[turn].lock().unwrap_or_else(PoisonError::into_inner);
        // All in one snapshot: a UIDNEXT that a message has already would hide it from a client that asks for what is
        // new (RFC 3501 section 2.3.1.1).
        let snapshot = connection.unchecked_transaction()?;
        let Some(mailbox) = which.find(&snapshot)? else { return Ok(None) };
        let key = (shard, mailbox.id);
        let view = match self.fresh(key, &mailbox) {
            Some(view) => view,
            None => {
                let known = self.known(&key).filter(|known| {
                    known.uidvalidity == number(mailbox.uidvalidity) && is_remembered(known.modseq, &mailbox)
                });
                let messages = messages(&snapshot, &mailbox, known.as_ref())?;
                let view = View {
                    uidvalidity: number(mailbox.uidvalidity),
                    uidnext: number(mailbox.uidnext),
                    modseq: mailbox.modseq.unsigned_abs(),
                    messages,
                    // Whoever asks is told by the shard's notices.
                    recent: number(mailbox.uidnext),
                };
                self.keep(key, &view);
                view
            }
        };
        Ok(Some((mailbox.id, view)))
    }

    fn known(&self, key: &Key) -> Option<View> {
        let looked_at = self.0.looked_at.lock().unwrap_or_else(PoisonError::into_inner).get(key).and_then(Seen::view);
        // What is too large to be kept may have left an earlier one there.
        self.0.kept.get(key).into_iter().chain(looked_at).max_by_key(|view| (view.uidvalidity, view.modseq))
    }

    fn keep(&self, key: Key, view: &View) {
        let mut looked_at = self.0.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        // As many are known as are looked at, or twice as many for a moment.
        if looked_at.len() == looked_at.capacity() {
            looked_at.retain(|_, seen| seen.view().is_some());
        }
        looked_at.insert(key, Seen::of(view));
        self.0.kept.insert(key, view.clone());
    }

    /// The view that is kept, unless the mailbox has changed since. It may be newer than the reader's snapshot.
    fn fresh(&self, key: Key, mailbox: &Mailbox) -> Option<View> {
        let known = self.known(&key)?;
        let is_fresh =
            known.uidvalidity == number(mailbox.uidvalidity) && known.modseq >= mailbox.modseq.unsigned_abs();
        is_fresh.then_some(known)
    }
}

/// The messages of a mailbox, by what has changed in a view that is known, or all of them.
fn messages(snapshot: &Connection, mailbox: &Mailbox, known: Option<&View>) -> rusqlite::Result<Rows> {
    let mut words = Words::default();
    let Some(known) = known else {
        let mut marks = marks::since(snapshot, mailbox.id, 0, &mut words)?.into_iter().collect();
        return Ok(reader::messages(snapshot, mailbox.id, 0, &mut marks, &mut words)?.into_iter().map(row).collect());
    };
    let since = i64::try_from(known.modseq).unwrap_or(i64::MAX);
    let mut marks = marks::since(snapshot, mailbox.id, since, &mut words)?;
    let new = marks.partition_point(|(uid, _)| number(*uid) < known.uidnext);
    let mut new = marks.split_off(new).into_iter().collect();
    let new = reader::messages(snapshot, mailbox.id, known.uidnext.into(), &mut new, &mut words)?;
    let gone: Vec<u32> = reader::gone(snapshot, mailbox.id, since)?.into_iter().map(number).collect();
    let changed = known.messages.changed(
        &marks,
        |(uid, _)| number(*uid),
        |row, (_, mark)| {
            // Those that lie in memory already.
            let keywords = if mark.keywords == row.keywords { &row.keywords } else { &mark.keywords };
            let keywords = Arc::clone(keywords);
            MessageRow { flags: mark.flags, keywords, modseq: mark.modseq.unsigned_abs(), ..*row }
        },
    );
    Ok(changed.with(new.into_iter().map(row), &gone))
}

/// Whether all that was expunged after this MODSEQ is known.
fn is_remembered(modseq: u64, mailbox: &Mailbox) -> bool {
    mailbox.modseq - i64::try_from(modseq).unwrap_or(i64::MAX) <= REMEMBERED
}

/// What was expunged after this MODSEQ; none if it is not remembered for so long.
pub(crate) async fn gone(shard: &Shard, mailbox: i64, modseq: u64) -> anyhow::Result<Option<Vec<u32>>> {
    let since = i64::try_from(modseq).unwrap_or(i64::MAX);
    let ask = move |connection: &Connection, _: &Path| {
        let snapshot = connection.unchecked_transaction()?;
        let known = reader::numbered(&snapshot, mailbox)?.filter(|mailbox| is_remembered(modseq, mailbox));
        if known.is_none() {
            return Ok(None);
        }
        Ok(Some(reader::gone(&snapshot, mailbox, since)?.into_iter().map(number).collect()))
    };
    shard.reader.ask(ask).await
}

pub(crate) fn number(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn row(message: shard::Message) -> MessageRow {
    MessageRow {
        uid: number(message.uid),
        flags: message.flags,
        keywords: message.keywords,
        size: u64::try_from(message.size).unwrap_or(0),
        received: message.received,
        modseq: message.modseq.unsigned_abs(),
    }
}

#[cfg(test)]
mod tests;
