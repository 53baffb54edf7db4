//! A journal that was torn or has rotted: what is whole is found, what is not is named, and nothing is taken for a
//! record.
#![allow(clippy::unwrap_used)]

use super::*;

#[tokio::test]
async fn a_journal_cut_anywhere_keeps_every_record_before_the_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    for number in 1..=4 {
        journal.append(mail(number, 1)).await.unwrap();
    }
    drop(journal);
    drop(open(folder.path()));
    let whole = fs::read(segment::mail_path(folder.path(), 1)).unwrap();
    let record = record::HEAD + 1030;
    let title = whole.len() - 4 * record;
    for length in (0..whole.len()).step_by(37).chain([title, title + record, whole.len()]) {
        let cut = tempfile::tempdir().unwrap();
        fs::write(segment::mail_path(cut.path(), 1), &whole[..length]).unwrap();
        let (index, recovery) = recover::recover(&config(cut.path()), "n", NOW).unwrap();
        let want = length.saturating_sub(title) / record;
        assert_eq!((index.pending(), recovery.damage.len()), (want, 0), "cut at {length}");
    }
}

#[tokio::test]
async fn a_flipped_byte_costs_one_record_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    for number in 1..=3 {
        journal.append(mail(number, 1)).await.unwrap();
    }
    let path = segment::mail_path(folder.path(), 1);
    let record = (record::HEAD + 1030) as u64;
    let begin = fs::metadata(&path).unwrap().len() - 2 * record;
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    file.write_all_at(b"!", begin + 500).unwrap();
    let error = journal.read(mail(2, 1).id).await.unwrap_err().to_string();
    assert!(error.contains("0000000001.mail") && error.contains(&begin.to_string()), "{error}");
    drop(journal);
    let (journal, recovery) = open(folder.path());
    assert_eq!(recovery.damage, [Damage { file: path, offset: begin, length: record }]);
    assert!(journal.pending(mail(1, 1).id).is_some() && journal.pending(mail(3, 1).id).is_some());
}

/// A sender knows every byte of its mail. A record within it must not be found when the one around it is damaged.
#[tokio::test]
async fn a_record_within_a_body_is_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    let inner = mail(9, 1);
    let mut forged = BytesMut::new();
    forged.extend_from_slice(&record::head(&inner, &[0; 32]));
    forged.extend_from_slice(&inner.envelope);
    forged.extend_from_slice(&inner.body);
    assert!(record::parse(&forged, &[0; 32]).is_some(), "with another key it would be one");
    let outer = Mail { body: forged.freeze(), ..mail(1, 1) };
    journal.append(outer).await.unwrap();
    drop(journal);
    drop(open(folder.path()));
    let path = segment::mail_path(folder.path(), 1);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(fs::metadata(&path).unwrap().len() - 1).unwrap();
    assert_eq!(open(folder.path()).1.pending, 0);
}

/// Refusals and operators' decisions are synced: what was torn before them must not hide them.
#[tokio::test]
async fn a_damaged_mark_hides_none_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    for number in [1, 2] {
        journal.append(mail(number, 1)).await.unwrap();
    }
    journal.went_on(mail(1, 1).id, &[[1; 32]]).await;
    assert_eq!(journal.refuse(mail(2, 1).id).await.unwrap(), Refusal::Done);
    drop(journal);
    drop(open(folder.path()));
    let path = segment::marks_path(folder.path(), 1);
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"!", 5).unwrap();
    let (journal, recovery) = open(folder.path());
    assert_eq!(recovery.damage.len(), 1);
    assert!(journal.pending(mail(1, 1).id).is_some() && journal.pending(mail(2, 1).id).is_none());
}

#[tokio::test]
async fn a_segment_with_a_damaged_title_gives_its_mail() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open_sparse(folder.path());
    for number in [2, 3, 4] {
        journal.append(large(number)).await.unwrap();
        journal.append(large(number + 10)).await.unwrap();
    }
    drop(journal);
    drop(open_sparse(folder.path()));
    let path = segment::mail_path(folder.path(), 1);
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"!!", 25).unwrap();
    let (journal, recovery) = open_sparse(folder.path());
    assert_eq!((recovery.pending, recovery.damage.len()), (6, 1));
    assert!(journal.read(large(2).id).await.is_ok());
}

/// With its key, the one segment of a quiet journal was taken for an empty one, and cut.
#[tokio::test]
async fn the_only_segment_with_a_damaged_title_gives_its_mail() {
    for is_key_known in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = open(folder.path());
        journal.append(mail(1, 1)).await.unwrap();
        drop(journal);
        drop(open(folder.path()));
        let path = segment::mail_path(folder.path(), 1);
        let before = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"!!", 25).unwrap();
        if !is_key_known {
            fs::remove_file(folder.path().join("books")).unwrap();
        }
        let recovered = recover::recover(&config(folder.path()), "n", NOW);
        assert_eq!(fs::metadata(&path).unwrap().len(), before, "nothing is cut");
        match recovered {
            Ok((index, recovery)) => {
                assert!(is_key_known);
                assert_eq!((index.pending(), recovery.damage.len(), recovery.cut), (1, 1, 0));
            }
            Err(error) => assert!(!is_key_known && error.to_string().contains("is damaged, and neither"), "{error:#}"),
        }
    }
}

/// A record that is whole by its lengths may have been synced, and its sender have had 250.
#[tokio::test]
async fn a_rotten_last_record_is_damage_and_no_torn_one() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.append(mail(1, 1)).await.unwrap();
    journal.append(mail(2, 1)).await.unwrap();
    drop(journal);
    drop(open(folder.path()));
    let path = segment::mail_path(folder.path(), 1);
    let length = fs::metadata(&path).unwrap().len();
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"!", length - 1).unwrap();
    let (index, recovery) = recover::recover(&config(folder.path()), "n", Millis(NOW.0 + 1)).unwrap();
    assert_eq!((index.pending(), recovery.cut, recovery.damage.len()), (1, 0, 1));
    assert!(!index.has_ended(mail(2, 1).id));
}
