//! The journal as a whole: kept, ended, reopened.
#![allow(clippy::unwrap_used)]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use proto::{Burial, End, EndKind};
use runtime::config::ByteSize;

use super::*;

mod carried;
mod damaged;
mod failing;

pub(super) const NOW: Millis = Millis(1_800_000_000_000);

pub(crate) fn config(folder: &Path) -> Config {
    Config {
        folder: folder.to_owned(),
        segment: ByteSize::mib(64),
        carry_after: Duration::from_secs(900),
        max_bytes: ByteSize::mib(1024),
        max_mails: 1000,
        min_free: ByteSize(0),
        refill_first: Duration::from_secs(300),
        refill_most: Duration::from_secs(3600),
        doubt_for: Duration::from_secs(86_400),
        doubt_bare_for: Duration::from_secs(600),
        doubt_most: 1000,
    }
}

pub(crate) fn mail(number: u8, recipients: u32) -> Mail {
    Mail {
        id: MailId::new(NOW, number.into()),
        recipients,
        envelope: Bytes::from(vec![number; 30]),
        body: Bytes::from(vec![number; 1000]),
        doubt: [number; 32],
        each: Vec::new(),
    }
}

/// As if an append of such a mail had failed, and could not be cut off.
pub(crate) fn leave(journal: &Journal, key: Doubt) {
    journal.index().note_left([key].into_iter());
}

fn open(folder: &Path) -> (Journal, Recovery) {
    open_as(&config(folder))
}

/// The same with small segments, whose leftovers are carried over at once.
fn open_sparse(folder: &Path) -> (Journal, Recovery) {
    open_as(&Config { segment: ByteSize::kib(64), carry_after: Duration::ZERO, ..config(folder) })
}

fn open_as(config: &Config) -> (Journal, Recovery) {
    // The writer of a journal that was just dropped gives the lock up when it has ended.
    let begun = std::time::Instant::now();
    loop {
        match Journal::open(config.clone(), "n", NOW) {
            Err(error) if error.to_string().contains("in use") && begun.elapsed() < Duration::from_secs(10) => {
                std::thread::yield_now();
            }
            opened => return opened.unwrap(),
        }
    }
}

/// A mail of which two fill a small segment.
fn large(number: u8) -> Mail {
    Mail { body: Bytes::from(vec![number; 60_000]), ..mail(number, 3) }
}

fn stored(id: MailId, recipient: u32, target: &str, of: u32, routing: u64) -> Ended {
    let end = End { recipient, routing, target: target.into(), of, kind: EndKind::Stored };
    Ended { id, ends: vec![end], burial: None }
}

#[tokio::test]
async fn what_was_kept_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    for number in 1..=20 {
        journal.append(mail(number, 2)).await.unwrap();
    }
    drop(journal);
    let (journal, recovery) = open(folder.path());
    assert_eq!(recovery, Recovery { pending: 20, ..Recovery::default() });
    let (envelope, body) = journal.read(mail(7, 2).id).await.unwrap();
    assert_eq!((envelope, body), (mail(7, 2).envelope, mail(7, 2).body));
    let books = journal.books();
    assert_eq!(books, Books { accepted: 40, in_flight: 40, ..Books::default() });
}

#[tokio::test]
async fn a_recipient_has_ended_when_all_of_one_set_have() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.append(mail(1, 1)).await.unwrap();
    let id = mail(1, 1).id;
    for ended in [stored(id, 0, "a", 2, 1), stored(id, 0, "a", 2, 1), stored(id, 0, "c", 2, 2)] {
        assert!(!journal.ended(&ended).await);
    }
    assert!(journal.ended(&stored(id, 0, "b", 2, 1)).await);
    assert!(journal.pending(id).is_none());
    assert_eq!(journal.books(), Books { accepted: 1, stored: 1, ..Books::default() });
}

#[tokio::test]
async fn the_books_survive_the_segments() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    for number in 1..=4 {
        journal.append(mail(number, 1)).await.unwrap();
    }
    journal.ended(&stored(mail(1, 1).id, 0, "a", 1, 1)).await;
    assert_eq!(journal.refuse(mail(2, 1).id).await.unwrap(), Refusal::Done);
    let burial = Some(Burial { stage: "scan".into(), reason: "r".into(), recipients: vec![0] });
    journal.ended(&Ended { id: mail(3, 1).id, ends: Vec::new(), burial }).await;
    let want = Books { accepted: 4, stored: 1, rejected: 1, buried: 1, in_flight: 1, held: 0 };
    assert_eq!(journal.books(), want);
    drop(journal);
    let (journal, _) = open(folder.path());
    assert_eq!(journal.books(), want);
    assert!(
        journal.replay(mail(3, 1).id, &[], NOW).await.unwrap()
            && !journal.replay(mail(4, 1).id, &[], NOW).await.unwrap()
    );
    for number in [3, 4] {
        journal.ended(&stored(mail(number, 1).id, 0, "a", 1, 1)).await;
    }
    drop(journal);
    let (journal, recovery) = open(folder.path());
    assert_eq!(recovery.pending, 0);
    assert_eq!(journal.books(), Books { accepted: 4, stored: 3, rejected: 1, ..Books::default() });
    assert!(segment::numbers(folder.path()).unwrap().is_empty(), "what has ended is gone");
}

/// The books name the segments that they have taken in, whose files go at the next start. A new segment had one of
/// their numbers when a restart found no segment at all, and the start after that removed it with its mail.
#[tokio::test]
async fn a_segment_never_has_the_number_of_one_that_went() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.append(mail(1, 1)).await.unwrap();
    journal.ended(&stored(mail(1, 1).id, 0, "a", 1, 1)).await;
    drop(journal);
    drop(open(folder.path()));
    let (journal, _) = open(folder.path());
    assert!(segment::numbers(folder.path()).unwrap().is_empty(), "the first segment went into the books");
    journal.append(mail(2, 1)).await.unwrap();
    drop(journal);
    let (journal, recovery) = open(folder.path());
    assert_eq!(recovery.pending, 1);
    assert!(journal.read(mail(2, 1).id).await.is_ok());
}

/// Its sender, cut off before the 550, sends it again: that is a new mail, to be judged anew. Recognised as the refused
/// one, it would be answered with 250 and be nowhere.
#[tokio::test]
async fn a_refused_mail_is_not_recognised_whatever_is_lost_with_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.append(mail(1, 1)).await.unwrap();
    assert_eq!(journal.refuse(mail(1, 1).id).await.unwrap(), Refusal::Done);
    assert_eq!(journal.doubtful(&[1; 32], NOW), None);
    for _ in 0..2 {
        let (index, _) = recover::recover(&config(folder.path()), "n", NOW).unwrap();
        assert_eq!(index.doubtful(&[1; 32], NOW), None);
    }
}

#[tokio::test]
async fn a_refusal_of_what_has_ended_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.append(mail(1, 1)).await.unwrap();
    journal.ended(&stored(mail(1, 1).id, 0, "a", 1, 1)).await;
    assert_eq!(journal.refuse(mail(1, 1).id).await.unwrap(), Refusal::Ended);
}

#[tokio::test]
async fn a_sender_that_did_not_hear_is_recognised_even_after_the_segment_went() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    for number in 1..=2 {
        journal.append(mail(number, 1)).await.unwrap();
        journal.ended(&stored(mail(number, 1).id, 0, "a", 1, 1)).await;
    }
    journal.went_on(mail(2, 1).id, &[[2; 32]]).await;
    for _ in 0..3 {
        assert_eq!(journal.doubtful(&[1; 32], NOW), Some(mail(1, 1).id));
        assert_eq!(journal.doubtful(&[2; 32], NOW), None);
    }
    drop(journal);
    drop(open(folder.path()));
    let (journal, _) = open(folder.path());
    assert!(segment::numbers(folder.path()).unwrap().is_empty());
    assert_eq!(journal.doubtful(&[1; 32], NOW), Some(mail(1, 1).id));
    assert_eq!(journal.doubtful(&[1; 32], NOW.plus(Duration::from_secs(86_401))), None);
    journal.went_on(mail(1, 1).id, &[[1; 32]]).await;
    assert_eq!(journal.doubtful(&[1; 32], NOW), None);
}

/// A mail to two, as its envelope says.
fn to_two() -> Mail {
    let arrival = proto::Arrival {
        id: mail(1, 2).id,
        node: "n".parse().unwrap(),
        client: proto::Client {
            address: [192, 0, 2, 7].into(),
            port: 1,
            helo: String::new(),
            reverse_name: String::new(),
            tls: String::new(),
        },
        reverse_path: "a@x".into(),
        recipients: ["ann@y", "bob@y"]
            .map(|to| proto::Recipient { address: to.into(), orcpt: String::new(), notify: String::new() })
            .into(),
        arrived: NOW,
        verdict_deadline: NOW,
        body: runtime::bodies::Bodies::describe(b"m"),
        header_block: Vec::new(),
        gate: proto::GateFacts::default(),
        envid: String::new(),
        ret: String::new(),
    };
    let envelope = proto::Envelope::new(arrival).encode();
    let each = crate::arrival::keys_of_recipients(&envelope);
    assert_eq!(each.len(), 2);
    Mail { envelope, each, ..mail(1, 2) }
}

/// The next attempt may be for one of them alone. Whose sender has gone on for the other is in doubt for the one still.
#[tokio::test]
async fn a_mail_is_recognised_for_each_recipient_also_after_its_segment_went() {
    let folder = tempfile::tempdir().unwrap();
    let two = to_two();
    let (id, [ann, bob]) = (two.id, [two.each[0], two.each[1]]);
    let (journal, _) = open(folder.path());
    journal.append(two).await.unwrap();
    let known = |journal: &Journal| [[1; 32], ann, bob].map(|key| journal.doubtful(&key, NOW) == Some(id));
    assert_eq!(known(&journal), [true; 3]);
    drop(journal);
    let (journal, _) = open(folder.path());
    assert_eq!(known(&journal), [true; 3], "the envelope says it again");
    journal.went_on(id, &[ann]).await;
    assert_eq!(known(&journal), [true, false, true]);
    for recipient in [0, 1] {
        journal.ended(&stored(id, recipient, "a", 1, 1)).await;
    }
    drop(journal);
    drop(open(folder.path()));
    let (journal, _) = open(folder.path());
    assert!(segment::numbers(folder.path()).unwrap().is_empty());
    assert!(known(&journal)[2], "it stands in the books");
    journal.went_on(id, &[ann, bob]).await;
    assert_eq!(known(&journal), [false; 3]);
}

#[tokio::test]
async fn what_has_not_ended_goes_round_again_with_growing_waits() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.append(mail(1, 1)).await.unwrap();
    let id = mail(1, 1).id;
    let at = |seconds| NOW.plus(Duration::from_secs(seconds));
    assert!(journal.due(at(299), 9).is_empty());
    assert_eq!(journal.due(at(300), 9), [id]);
    assert!(journal.due(at(899), 9).is_empty());
    assert_eq!(journal.due(at(900), 9), [id]);
    assert_eq!(journal.pending(id), Some(Pending { round: 2, held: None, cleared: false, open: vec![0] }));
    journal.hold(id, "virus").await;
    journal.all_due(at(901));
    assert_eq!(journal.due(at(901), 9), [id]);
    assert_eq!(
        journal.pending(id),
        Some(Pending { round: 3, held: Some("virus".into()), cleared: false, open: vec![0] })
    );
}

#[tokio::test]
async fn over_its_mark_it_takes_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { max_mails: 2, ..config(folder.path()) };
    let (journal, _) = Journal::open(config, "n", NOW).unwrap();
    for number in 1..=2 {
        journal.append(mail(number, 1)).await.unwrap();
    }
    assert!(matches!(journal.append(mail(3, 1)).await, Err(AppendError::Full(_))));
    journal.ended(&stored(mail(1, 1).id, 0, "a", 1, 1)).await;
    journal.append(mail(3, 1)).await.unwrap();
}

#[tokio::test]
async fn a_second_process_and_a_second_node_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.append(mail(1, 1)).await.unwrap();
    let again = Journal::open(config(folder.path()), "n", NOW).unwrap_err();
    assert!(again.to_string().contains("in use by another process"));
    drop(journal);
    drop(open(folder.path()));
    let mut other = Err(anyhow::anyhow!("not tried"));
    while other.as_ref().is_err_and(|error: &anyhow::Error| !error.to_string().contains("does not belong")) {
        other = Journal::open(config(folder.path()), "other", NOW);
    }
    assert!(other.unwrap_err().to_string().contains("does not belong to the accept node other"));
}

#[tokio::test]
async fn what_is_delivered_in_part_is_not_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.append(mail(1, 2)).await.unwrap();
    journal.ended(&stored(mail(1, 2).id, 0, "a", 2, 1)).await;
    assert_eq!(journal.refuse(mail(1, 2).id).await.unwrap(), Refusal::Begun);
    assert_eq!(journal.books().in_flight, 2);
}

/// One round was being refused when it was heard that another had passed every check: the sender had a bounce, the
/// recipient the mail.
#[tokio::test]
async fn what_is_known_to_be_cleared_is_not_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.append(mail(1, 1)).await.unwrap();
    assert!(journal.clear(mail(1, 1).id));
    assert_eq!(journal.refuse(mail(1, 1).id).await.unwrap(), Refusal::Begun);
    assert_eq!(journal.books().in_flight, 1);
}

/// What has ended by another round gets no further copy: neither the mail, nor those of its recipients that have one.
#[tokio::test]
async fn only_who_waits_still_is_held_for() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.append(mail(1, 2)).await.unwrap();
    let id = mail(1, 2).id;
    assert_eq!(journal.hold(id, "virus").await, Some(vec![0, 1]));
    journal.ended(&stored(id, 0, "a", 1, 1)).await;
    assert_eq!(journal.hold(id, "virus").await, Some(vec![1]));
    journal.ended(&stored(id, 1, "a", 1, 1)).await;
    assert_eq!(journal.hold(id, "virus").await, None);
    assert_eq!(journal.hold(mail(2, 1).id, "virus").await, None);
}

/// A round that is rejected after a restart must not hold what another round has passed, whose copy is under way.
#[tokio::test]
async fn a_restart_knows_what_has_passed_every_check() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.append(mail(1, 1)).await.unwrap();
    let id = mail(1, 1).id;
    assert!(journal.clear(id) && journal.clear(id) && !journal.clear(mail(2, 1).id));
    drop(journal);
    let (journal, _) = open(folder.path());
    assert!(journal.pending(id).unwrap().cleared);
    journal.ended(&stored(id, 0, "a", 1, 1)).await;
    assert!(!journal.clear(id), "nothing is remembered of what has ended");
}

/// The segments of the version before say less, and the same of what they say.
#[tokio::test]
async fn a_journal_of_the_version_before_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.append(mail(1, 1)).await.unwrap();
    drop(journal);
    drop(open(folder.path()));
    let path = segment::mail_path(folder.path(), 1);
    let bytes = fs::read(&path).unwrap();
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    let title = std::str::from_utf8(&bytes[..end]).unwrap().replace("journal 3", "journal 2");
    let words = title.rsplit_once(' ').unwrap().0;
    let sum = blake3::hash(words.as_bytes()).to_hex();
    fs::write(&path, [format!("{words} {}\n", &sum[..16]).as_bytes(), &bytes[end + 1..]].concat()).unwrap();
    let (journal, recovery) = open(folder.path());
    assert_eq!(recovery, Recovery { pending: 1, ..Recovery::default() });
    assert!(journal.clear(mail(1, 1).id));
}

/// Of a mail that this journal never had, or that damage has taken, nobody may say that it has ended.
#[tokio::test]
async fn only_what_was_known_has_ended_for_certain() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    let at = |seconds: u64| MailId::new(Millis(NOW.0 + seconds * 1000), 77);
    assert!(
        journal.has_ended(at(1)) && !journal.has_ended(MailId::new(Millis(NOW.0 - 1000), 1)),
        "before it was begun"
    );
    journal.append(mail(1, 1)).await.unwrap();
    assert!(!journal.has_ended(mail(1, 1).id));
    journal.ended(&stored(mail(1, 1).id, 0, "a", 1, 1)).await;
    assert!(journal.has_ended(mail(1, 1).id));
    journal.append(mail(2, 1)).await.unwrap();
    journal.append(mail(3, 1)).await.unwrap();
    drop(journal);
    drop(open(folder.path()));
    let path = segment::mail_path(folder.path(), 1);
    let begin = fs::metadata(&path).unwrap().len() - 2 * (record::HEAD + 1030) as u64;
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"!", begin + 500).unwrap();
    let later = Millis(NOW.0 + 60_000);
    for _ in 0..2 {
        let (index, _) = recover::recover(&config(folder.path()), "n", later).unwrap();
        assert!(!index.has_ended(mail(2, 1).id) && index.has_ended(at(61)));
    }
}

/// Rounds that the broker did not take do not lengthen the wait for the next.
#[tokio::test]
async fn a_broker_that_takes_nothing_costs_no_patience() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.append(mail(1, 1)).await.unwrap();
    let id = mail(1, 1).id;
    let at = |seconds| NOW.plus(Duration::from_secs(seconds));
    for second in 300..320 {
        assert_eq!(journal.due(at(second), 9), [id]);
        journal.due_again(id, at(second + 1));
    }
    assert_eq!(journal.due(at(320), 9), [id]);
    assert!(journal.due(at(919), 9).is_empty());
    assert_eq!(journal.due(at(920), 9), [id]);
}
