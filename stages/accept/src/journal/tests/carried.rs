//! Records that are carried over from old segments: with all that became of the mail, through crashes and damage.
#![allow(clippy::unwrap_used)]

use super::*;

fn all_ended(id: MailId) -> Ended {
    let end = |recipient| End { recipient, routing: 1, target: "a".into(), of: 1, kind: EndKind::Stored };
    Ended { id, ends: (0..3).map(end).collect(), burial: None }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "waited in vain until {what}");
        tokio::task::yield_now().await;
    }
}

/// A journal in whose first segment only a small mail is alive, in every state that a mail can have.
async fn with_leftover(folder: &Path) -> (Journal, MailId) {
    let (journal, _) = open_sparse(folder);
    let small = Mail { recipients: 5, ..mail(1, 5) };
    let id = small.id;
    journal.append(small).await.unwrap();
    journal.append(large(2)).await.unwrap();
    journal.append(large(3)).await.unwrap();
    journal.ended(&stored(id, 0, "a", 1, 1)).await;
    journal.ended(&stored(id, 1, "a", 2, 1)).await;
    journal.hold(id, "virus").await;
    assert!(journal.clear(id));
    let burial = Some(Burial { stage: "scan".into(), reason: "r".into(), recipients: vec![2, 3] });
    journal.ended(&Ended { id, ends: Vec::new(), burial }).await;
    // The last is waited for, so all of them are in the file.
    assert!(journal.replay(id, &[3], NOW).await.unwrap());
    (journal, id)
}

#[track_caller]
fn check_leftover(journal: &Journal, id: MailId) {
    let pending = journal.pending(id).unwrap();
    assert_eq!((pending.held.as_deref(), pending.cleared, pending.open), (Some("virus"), true, vec![1, 3, 4]));
    assert_eq!(journal.buried(), [id]);
    let books = journal.books();
    assert!(books.balanced(), "{books:?}");
    assert_eq!((books.accepted, books.stored, books.buried, books.in_flight), (11, 7, 1, 3));
}

#[tokio::test]
async fn what_is_left_of_an_old_segment_is_carried_over_with_all_that_became_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, id) = with_leftover(folder.path()).await;
    journal.went_on(id, &[[1; 32]]).await;
    for number in [2, 3] {
        journal.ended(&all_ended(large(number).id)).await;
    }
    let gone = |number| !segment::mail_path(folder.path(), number).exists();
    until("the first segment is gone", || {
        journal.tidy();
        gone(1)
    })
    .await;
    check_leftover(&journal, id);
    assert_eq!(journal.read(id).await.unwrap().0, mail(1, 5).envelope);
    drop(journal);
    let (journal, _) = open_sparse(folder.path());
    check_leftover(&journal, id);
    assert_eq!(journal.doubtful(&[1; 32], NOW), None, "its sender had gone on");
    journal.ended(&stored(id, 1, "b", 2, 1)).await;
    assert!(journal.drop_buried(id, &[2]).await.unwrap());
    for recipient in [3, 4] {
        journal.ended(&stored(id, recipient, "a", 1, 1)).await;
    }
    assert!(journal.pending(id).is_none());
    assert_eq!(journal.books(), Books { accepted: 11, stored: 10, buried: 1, ..Books::default() });
}

/// The old segment is still there after a crash, in any state: before the record, with it, and with a mail that ended
/// there.
#[tokio::test]
async fn two_records_of_one_mail_are_one_mail() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, id) = with_leftover(folder.path()).await;
    let kept: Vec<_> = ["mail", "marks"].map(|kind| folder.path().join(format!("0000000001.{kind}"))).into();
    let before: Vec<_> = kept.iter().map(|path| fs::read(path).unwrap()).collect();
    for number in [2, 3] {
        journal.ended(&all_ended(large(number).id)).await;
    }
    until("the first segment is gone", || {
        journal.tidy();
        !kept[0].exists()
    })
    .await;
    check_leftover(&journal, id);
    // This is said of the new record alone.
    assert!(journal.replay(id, &[2], NOW).await.unwrap());
    drop(journal);
    // As if the folded books had not been written: old and new stand side by side.
    let restored = tempfile::tempdir().unwrap();
    for (path, bytes) in kept.iter().zip(&before) {
        fs::write(restored.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some() {
            fs::copy(&path, restored.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let (index, recovery) = recover::recover(&config(restored.path()), "n", NOW).unwrap();
    assert_eq!((index.buried(), recovery.damage), (vec![], vec![]));
    assert_eq!(index.place(id).unwrap().segment, *segment::numbers(restored.path()).unwrap().last().unwrap());
    assert_eq!(index.books().accepted, 11, "once");
    // Without the new record its marks say nothing, though they are younger.
    let last = *segment::numbers(restored.path()).unwrap().last().unwrap();
    let title = segment::read_title(&fs::read(segment::mail_path(restored.path(), last)).unwrap(), "n", folder.path());
    let file = OpenOptions::new().write(true).open(segment::mail_path(restored.path(), last)).unwrap();
    file.set_len(title.unwrap().unwrap().1 as u64).unwrap();
    let (index, _) = recover::recover(&config(restored.path()), "n", NOW).unwrap();
    assert_eq!((index.place(id).unwrap().segment, index.books().accepted, index.buried()), (1, 11, vec![id]));
}

fn head(number: u8) -> record::Head {
    record::parse_head(&record::head(&mail(number, 1), &[0; 32])).unwrap()
}

fn place(segment: u64, offset: u64) -> record::Place {
    record::Place { segment, offset, envelope: 30, body: 1000 }
}

fn index(records: &[(u8, u64)]) -> Index {
    let mut index = Index::new(books::Ledger::default(), [0; 32], 1000, Duration::from_secs(86_400));
    for (number, segment) in records {
        index.begin_segment(*segment, [0; 32], 100_000);
        index.insert(&head(*number), Vec::new(), place(*segment, u64::from(*number)), NOW);
    }
    index
}

/// A carried record that is gone would leave the first one behind, which does not know what was said of the other.
#[test]
fn two_records_of_a_mail_go_together() {
    let end = |index: &mut Index, number| assert!(index.ended(&stored(mail(number, 1).id, 0, "a", 1, 1)).unwrap().1);
    let mut carried = index(&[(1, 1), (2, 1), (1, 2)]);
    assert_eq!(carried.place(mail(1, 1).id).unwrap().segment, 2);
    end(&mut carried, 1);
    assert_eq!(carried.foldable(None), [0; 0], "the first segment has another mail");
    end(&mut carried, 2);
    assert_eq!(carried.foldable(Some(2)), [1], "the first may go before");
    assert_eq!(carried.foldable(None), [1, 2]);
    assert_eq!(carried.books(), Books { accepted: 2, stored: 2, ..Books::default() });
    let mut left = index(&[(1, 1)]);
    end(&mut left, 1);
    left.begin_segment(2, [0; 32], 100_000);
    left.insert(&head(1), Vec::new(), place(2, 1), NOW);
    left.insert(&head(2), Vec::new(), place(2, 2), NOW);
    assert_eq!((left.foldable(None), left.books().accepted), (vec![], 2), "what was said of it last is in the first");
    end(&mut left, 2);
    assert_eq!(left.foldable(None), [1, 2]);
}

#[test]
fn what_ends_while_it_is_carried_over_ends_in_its_new_place() {
    for (to, segment) in [(Some(place(2, 9)), 2), (None, 1)] {
        let mut index = index(&[(1, 1)]);
        index.begin_segment(2, [0; 32], 100);
        let id = mail(1, 1).id;
        assert_eq!(index.begin_move(1, 1), [(id, vec![])]);
        index.went_on(id);
        assert_eq!(index.ended(&stored(id, 0, "a", 1, 1)), Some((1, true)));
        assert!(index.pending_state(id).is_none() && index.place(id).is_some(), "it must not leave");
        let marks = index.end_move(id, to);
        assert!(matches!(marks[..], [Mark::WentOn, Mark::End(_)]), "{marks:?}");
        assert!(index.place(id).is_none() && index.segments[&segment].open.is_empty());
        assert_eq!(index.books(), Books { accepted: 1, stored: 1, ..Books::default() });
    }
}

#[tokio::test]
async fn a_damaged_record_keeps_its_segment_and_brings_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, id) = with_leftover(folder.path()).await;
    journal.append(mail(9, 1)).await.unwrap();
    drop(journal);
    drop(open(folder.path()));
    // The large mails go, the small one can be carried over, one is damaged.
    let path = segment::mail_path(folder.path(), 1);
    let (journal, _) = open_sparse(folder.path());
    let (damaged, key) = journal.index().record(large(2).id).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"!", damaged.offset + 500).unwrap();
    journal.ended(&all_ended(large(3).id)).await;
    // Two thirds are alive: not sparse until it is said so.
    journal.index().begin_segment(1, key, 1 << 20);
    until("the sound mail is carried over", || {
        journal.tidy();
        journal.index().segment_of(id) != Some(1)
    })
    .await;
    assert!(path.exists() && journal.pending(large(2).id).is_some());
    for recipient in [1, 3, 4] {
        journal.ended(&stored(id, recipient, "z", 1, 9)).await;
    }
    assert!(journal.drop_buried(id, &[]).await.unwrap());
    journal.ended(&stored(mail(9, 1).id, 0, "a", 1, 1)).await;
    assert!(journal.pending(id).is_none());
    drop(journal);
    let (_, recovery) = open(folder.path());
    assert_eq!((recovery.pending, recovery.damage.len()), (0, 1));
    assert!(!path.exists() && path.with_extension("damaged").exists(), "what is damaged is set aside");
}

#[tokio::test]
async fn an_old_segment_goes_in_portions() {
    let folder = tempfile::tempdir().unwrap();
    let big = |number| Mail { body: Bytes::from(vec![number; 5 << 20]), ..mail(number, 3) };
    let wide = Config { segment: ByteSize::mib(50), carry_after: Duration::ZERO, ..config(folder.path()) };
    let (journal, _) = Journal::open(wide, "n", NOW).unwrap();
    for number in 1..=10 {
        journal.append(big(number)).await.unwrap();
    }
    for number in 3..=10 {
        journal.ended(&all_ended(big(number).id)).await;
    }
    until("the first segment is gone", || {
        journal.tidy();
        !segment::mail_path(folder.path(), 1).exists()
    })
    .await;
    for number in 1..=2 {
        assert_eq!(journal.read(big(number).id).await.unwrap().1, big(number).body);
    }
    assert_eq!(journal.books(), Books { accepted: 30, stored: 24, in_flight: 6, ..Books::default() });
}

/// One record that cannot be read kept its segment; what was carried over from there was carried on and on, and each
/// time left one segment more that could not go.
#[test]
fn what_cannot_go_is_not_carried_further() {
    let mut index = index(&[(1, 1), (2, 1), (1, 2)]);
    let after = Duration::ZERO;
    assert_eq!(index.sparse(None, NOW, after), Some(1));
    index.stays_until(1, Millis(u64::MAX));
    assert_eq!(index.sparse(None, NOW, after), None, "the second is bound to the first");
}
