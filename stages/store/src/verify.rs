//! Verifies a node's folder: every body that a row names is read, and the rows are held against each other.
//!
//! It only reads, and a running node does not mind: each look is a snapshot of its own, and what a rewritten pack has
//! moved meanwhile is looked for where it is now. Bytes that no row names are not damage; a crash leaves such. A whole
//! pack of them is told all the same: the rows may have come from an older backup, and its mail is out of reach. While
//! the rows of a shard are counted, its write-ahead log cannot be emptied and grows by what is delivered in these
//! seconds or minutes.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::node::shard_folders;
use crate::pack::{self, Place};
use crate::shard::{DELETED, SEEN, Words, marks, reader, redo, schema};

/// Rows of bodies that are asked for at once.
const ROWS: u32 = 1000;

/// What was looked at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Bodies.
    pub bodies: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// Messages.
    pub messages: u64,
    /// What was told.
    pub damages: u64,
}

/// Rows that must not be there, each as a line.
const WRONG: [&str; 7] = [
    "SELECT 'message ' || uid || ' in mailbox ' || mailbox || ' has no body'
     FROM messages LEFT JOIN bodies ON bodies.id = body WHERE bodies.id IS NULL",
    "SELECT 'message ' || uid || ' is in mailbox ' || mailbox || ', which is not there'
     FROM messages LEFT JOIN mailboxes ON mailboxes.id = mailbox
     WHERE mailboxes.id IS NULL AND mailbox NOT IN (SELECT mailbox FROM doomed)",
    "SELECT 'the body in pack ' || pack || ' at offset ' || offset || ' is said to be needed by ' || refs || ', and is \
     by '
         || coalesce(needed, 0)
     FROM bodies LEFT JOIN (SELECT body, count(*) AS needed FROM messages \
     GROUP BY body) ON body = id
     WHERE refs != coalesce(needed, 0)",
    "SELECT 'mailbox ' || name || ' of account ' || account || ' would give a UID or MODSEQ a second time'
     FROM mailboxes JOIN
         (SELECT mailbox, max(uid) AS last, max(modseq) AS latest FROM
             (SELECT mailbox, uid, modseq FROM messages UNION ALL SELECT mailbox, uid, modseq FROM tombstones
              UNION ALL SELECT mailbox, 0, modseq FROM marks)
          GROUP BY mailbox) ON mailbox = id
     WHERE uidnext <= last OR modseq < latest",
    "SELECT 'account ' || account || ' counts ' || bytes || ' bytes in ' || messages || ' messages, and has '
         || coalesce(size, 0) || ' in ' || coalesce(here, 0)
     FROM accounts LEFT JOIN
         (SELECT account AS whose, sum(size) AS size, count(*) AS here
          FROM messages JOIN mailboxes ON mailboxes.id = mailbox GROUP BY account) ON whose = account
     WHERE bytes != coalesce(size, 0) OR messages != coalesce(here, 0)",
    "SELECT 'what is kept of the text of body ' || body || ' would be told of another body'
     FROM outlines LEFT JOIN bodies ON id = body WHERE id IS NULL",
    "SELECT 'mailbox ' || name || ' of account ' || account || ' is there, and its messages are to go'
     FROM doomed JOIN mailboxes ON id = mailbox",
];

/// Looks at everything in a node's folder; `tell` gets a line for each damage, and for each pack that no row names.
///
/// # Errors
/// When the folder is not a node's, or cannot be read at all.
pub fn verify(folder: &Path, mut tell: impl FnMut(&str)) -> anyhow::Result<Verified> {
    let mut verified = Verified::default();
    for shard in shard_folders(folder)? {
        let mut damages = 0;
        let name = shard.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut told = |line: &str| {
            damages += 1;
            tell(&format!("{name}: {line}"));
        };
        let unnamed = look(&shard, &mut verified, &mut told).unwrap_or_else(|error| {
            told(&format!("{error:#}"));
            Vec::new()
        });
        verified.damages += damages;
        unnamed.iter().for_each(|line| tell(&format!("{name}: {line}")));
    }
    Ok(verified)
}

/// Tells each damage of a shard; gives a line for each pack that no row names.
fn look(shard: &Path, verified: &mut Verified, tell: &mut dyn FnMut(&str)) -> anyhow::Result<Vec<String>> {
    let mut database = schema::open_reader(&shard.join("shard.db"))?;
    let version: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version != schema::VERSION {
        // What it does not have yet would be told as damage.
        anyhow::bail!(
            "its database has version {version}; it can be verified once the store has brought it up to date"
        );
    }
    // A database that is damaged itself may still name its bodies.
    if let Err(error) = rows(&mut database, verified, tell) {
        tell(&format!("{error:#}"));
    }
    let packs = shard.join("packs");
    bodies(&database, &packs, verified, tell)?;
    unnamed(&database, &packs)
}

/// Packs that no row names. The last is left out: it is written to, and may have nothing in it yet; so are those whose
/// files are about to go.
fn unnamed(database: &Connection, packs: &Path) -> anyhow::Result<Vec<String>> {
    let mut numbers = pack::numbers(packs)?;
    numbers.sort_unstable();
    numbers.pop();
    let named = "SELECT 1 FROM bodies WHERE pack = ?1 UNION ALL SELECT 1 FROM retired WHERE pack = ?1";
    let mut named = database.prepare(named)?;
    let mut lines = Vec::new();
    for number in numbers {
        if named.exists([number])? {
            continue;
        }
        let path = pack::path(packs, number);
        // It has gone since the folder was read.
        let Ok(file) = path.metadata() else { continue };
        let (file, path) = (file.len(), path.display());
        lines.push(format!("no row names any of the {file} bytes of {path}: mail in it is out of reach"));
    }
    Ok(lines)
}

/// The rows, in one snapshot.
fn rows(database: &mut Connection, verified: &mut Verified, tell: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let snapshot = database.transaction()?;
    let mut lines = |sql: &str| -> anyhow::Result<()> {
        let mut statement = snapshot.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let line: String = row.get(0)?;
            if line != "ok" {
                tell(&line);
            }
        }
        Ok(())
    };
    lines("PRAGMA quick_check")?;
    WRONG.iter().try_for_each(|sql| lines(sql))?;
    counts(&snapshot, tell)?;
    let messages: i64 = snapshot.query_row("SELECT count(*) FROM messages", [], |row| row.get(0))?;
    verified.messages += messages.unsigned_abs();
    Ok(())
}

/// What the mailboxes count, and what is in them.
fn counts(snapshot: &Connection, tell: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let mut mailboxes =
        snapshot.prepare("SELECT id, name, account, messages, unseen, deleted, bytes FROM mailboxes")?;
    let mut mailboxes = mailboxes.query([])?;
    while let Some(row) = mailboxes.next()? {
        let (id, name, account): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let counted: [i64; 4] = [row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?];
        let mut words = Words::default();
        let mut marks = marks::since(snapshot, id, 0, &mut words)?.into_iter().collect();
        let mut here = [0; 4];
        for message in reader::messages(snapshot, id, 0, &mut marks, &mut words)? {
            here[0] += 1;
            here[1] += i64::from(message.flags & SEEN == 0);
            here[2] += i64::from(message.flags & DELETED != 0);
            here[3] += message.size;
        }
        if counted != here {
            let [messages, unseen, deleted, bytes] = counted;
            tell(&format!(
                "mailbox {name} of account {account} counts {messages} messages, {unseen} unseen, {deleted} deleted, \
                 {bytes} bytes, and has {here:?}"
            ));
        }
        if let Some(uid) = marks.keys().next() {
            tell(&format!("mailbox {name} of account {account} has a mark for message {uid}, which is not there"));
        }
    }
    Ok(())
}

/// A row of a body.
struct Named {
    id: i64,
    digest: [u8; 32],
    place: Place,
    refs: i64,
}

fn named(row: &Row<'_>) -> rusqlite::Result<Named> {
    let place = Place { pack: row.get(2)?, offset: row.get(3)?, length: row.get(4)? };
    Ok(Named { id: row.get(0)?, digest: row.get(1)?, place, refs: row.get(5)? })
}

/// Every body, in the order in which they lie on the disk as far as nothing has moved.
fn bodies(
    database: &Connection,
    packs: &Path,
    verified: &mut Verified,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let some = "SELECT id, digest, pack, offset, length, refs FROM bodies WHERE id > ? ORDER BY id LIMIT ?";
    let mut some = database.prepare(some)?;
    let mut behind = 0;
    loop {
        let found = some.query_map(params![behind, ROWS], named)?.collect::<Result<Vec<_>, _>>()?;
        let Some(last) = found.last() else { return Ok(()) };
        behind = last.id;
        for body in found {
            verified.bodies += 1;
            verified.bytes += body.place.length.unsigned_abs();
            if let Some(error) = damage(database, packs, &body)? {
                let why = if body.refs == 0 { " (no message needs it)" } else { "" };
                tell(&format!("{error:#}{why}"));
            }
        }
    }
}

/// What is wrong with a body, wherever it lies by now.
fn damage(database: &Connection, packs: &Path, body: &Named) -> anyhow::Result<Option<anyhow::Error>> {
    let mut place = body.place;
    while let Err(error) = pack::read(packs, place, &body.digest) {
        let again = "SELECT id, digest, pack, offset, length, refs FROM bodies WHERE id = ?";
        let again = database.prepare_cached(again)?.query_row([body.id], named).optional()?;
        match again {
            // The row is gone, or its number is that of another body by now.
            None => return Ok(None),
            Some(again) if again.digest != body.digest => return Ok(None),
            Some(again) if again.place != place => place = again.place,
            Some(_) if redo::holds(database, place, &body.digest)? => {
                return Ok(Some(error.context("to be written again when the node starts")));
            }
            Some(_) => return Ok(Some(error)),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::RefCell;
    use std::os::unix::fs::FileExt as _;
    use std::rc::Rc;

    use bytes::Bytes;
    use runtime::config::{Section, Sheet};

    use super::*;
    use crate::shard::{Change, Delivery};
    use crate::{Config, Node};

    /// A running node with four messages of one account, of which one is expunged.
    async fn site() -> (tempfile::TempDir, Node) {
        let folder = tempfile::tempdir().unwrap();
        let section = Section::root(serde_json::json!({"shards": 2}), Rc::new(RefCell::new(Sheet::default())));
        let config = Config { folder: folder.path().join("store"), ..Config::read(section, folder.path()) };
        let node = Node::open(&config, "s1").unwrap();
        for number in 0..4 {
            let body = Bytes::from(vec![number; 100]);
            let delivery = Delivery::sample(number, body);
            node.deliver(delivery).await.unwrap();
        }
        let mailbox = node.shard(1).reader.mailboxes(1).await.unwrap().remove(1).id;
        node.change(1, Change::Expunge { account: 1, mailbox, uids: vec![4], only_deleted: false }).await.unwrap();
        (folder, node)
    }

    #[track_caller]
    fn check(folder: &tempfile::TempDir, want: &[&str]) {
        let mut lines = Vec::new();
        let verified = verify(&folder.path().join("store"), |line| lines.push(line.to_owned())).unwrap();
        let is_wanted = |(line, want): (&String, &&str)| line.starts_with("shard-001: ") && line.contains(want);
        assert!(lines.len() == want.len() && lines.iter().zip(want).all(is_wanted), "{lines:#?}");
        assert_eq!((verified.damages, verified.bodies), (lines.len() as u64, 4));
    }

    #[tokio::test]
    async fn a_sound_folder() {
        let (folder, _node) = site().await;
        check(&folder, &[]);
        let error = verify(folder.path(), |_| {}).unwrap_err().to_string();
        assert!(error.contains("meta.json"), "{error}");
        std::fs::remove_file(folder.path().join("store/shard-000/shard.db")).unwrap();
        let mut lines = Vec::new();
        verify(&folder.path().join("store"), |line| lines.push(line.to_owned())).unwrap();
        assert!(lines.len() == 1 && lines[0].starts_with("shard-000: opening "), "{lines:#?}");
    }

    #[tokio::test]
    async fn of_a_database_of_an_earlier_version_that_alone_is_told() {
        let (folder, _node) = site().await;
        let database = Connection::open(folder.path().join("store/shard-001/shard.db")).unwrap();
        database.execute_batch("DROP TABLE doomed; PRAGMA user_version = 2").unwrap();
        let mut lines = Vec::new();
        verify(&folder.path().join("store"), |line| lines.push(line.to_owned())).unwrap();
        assert!(lines.len() == 1 && lines[0].contains("has version 2; it can be verified once"), "{lines:#?}");
    }

    #[tokio::test]
    async fn packs_that_no_row_names_are_told() {
        let (folder, _node) = site().await;
        let packs = folder.path().join("store/shard-001/packs");
        for number in 2..=4 {
            std::fs::write(pack::path(&packs, number), b"of a newer database").unwrap();
        }
        let database = Connection::open(folder.path().join("store/shard-001/shard.db")).unwrap();
        database.execute("INSERT INTO retired (pack) VALUES (3)", []).unwrap();
        let mut lines = Vec::new();
        let verified = verify(&folder.path().join("store"), |line| lines.push(line.to_owned())).unwrap();
        assert!(
            lines.len() == 1 && lines[0].starts_with("shard-001: no row names any of the 19 bytes of"),
            "{lines:#?}"
        );
        assert!(lines[0].contains("000002.pack") && verified.damages == 0);
    }

    #[tokio::test]
    async fn every_damaged_body_is_named() {
        let (folder, _node) = site().await;
        let pack = std::fs::File::options().write(true).open(folder.path().join("store/shard-001/packs/000001.pack"));
        let pack = pack.unwrap();
        // Records of 53 and 100 bytes: the text of the second, the head of the third, the end of the last.
        pack.write_all_at(b"!", 153 + 60).unwrap();
        pack.write_all_at(b"!", 2 * 153).unwrap();
        pack.set_len(4 * 153 - 1).unwrap();
        let last = "000001.pack at offset 459: failed to fill whole buffer (no message needs it)";
        check(&folder, &["000001.pack at offset 153 is damaged", "offset 306: it is not a record", last]);
        let mut lines = Vec::new();
        let mut all = || {
            lines.clear();
            verify(&folder.path().join("store"), |line| lines.push(line.to_owned())).unwrap();
            lines.clone()
        };
        let again = "shard-001: to be written again when the node starts: the body in ";
        assert!(all().iter().all(|line| line.starts_with(again)), "{lines:#?}");
        let database = Connection::open(folder.path().join("store/shard-001/shard.db")).unwrap();
        database.execute("DELETE FROM redo", []).unwrap();
        assert!(all().iter().all(|line| line.starts_with("shard-001: the body in ")), "{lines:#?}");
    }

    #[tokio::test]
    async fn rows_that_do_not_agree_are_named() {
        let (folder, _node) = site().await;
        let spoil = |sql: &str| {
            let database = Connection::open(folder.path().join("store/shard-001/shard.db")).unwrap();
            assert!(database.execute(sql, []).unwrap() > 0, "{sql}");
        };
        let inbox = "WHERE account = 1 AND name = 'INBOX'";
        spoil(&format!("UPDATE mailboxes SET messages = 7, uidnext = 2 {inbox}"));
        spoil("UPDATE accounts SET bytes = 1");
        spoil("UPDATE bodies SET refs = 2 WHERE offset = 0");
        check(
            &folder,
            &[
                "the body in pack 1 at offset 0 is said to be needed by 2, and is by 1",
                "mailbox INBOX of account 1 would give a UID or MODSEQ a second time",
                "account 1 counts 1 bytes in 3 messages, and has 300 in 3",
                "mailbox INBOX of account 1 counts 7 messages, 3 unseen, 0 deleted, 300 bytes, and has [3, 3, 0, 300]",
            ],
        );
        // The last message is expunged: its UID was given all the same.
        spoil(&format!("UPDATE mailboxes SET messages = 3, uidnext = 4 {inbox}"));
        spoil("UPDATE accounts SET bytes = 300");
        spoil("UPDATE bodies SET refs = 1 WHERE offset = 0");
        check(&folder, &["mailbox INBOX of account 1 would give a UID or MODSEQ a second time"]);
        spoil(&format!("UPDATE mailboxes SET uidnext = 5 {inbox}"));
        spoil("INSERT INTO outlines (body, outline) VALUES (77, x'')");
        spoil(&format!("INSERT INTO doomed (mailbox) SELECT id FROM mailboxes {inbox}"));
        check(
            &folder,
            &[
                "what is kept of the text of body 77 would be told of another body",
                "mailbox INBOX of account 1 is there, and its messages are to go",
            ],
        );
        spoil("UPDATE messages SET body = 77, mailbox = 88 WHERE uid = 1");
        let mut lines = Vec::new();
        verify(&folder.path().join("store"), |line| lines.push(line.to_owned())).unwrap();
        assert!(lines.iter().any(|line| line.contains("message 1 in mailbox 88 has no body")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("message 1 is in mailbox 88, which is not there")), "{lines:#?}");
    }
}
