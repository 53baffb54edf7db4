//! Disks that do not sync. A link to /dev/null is such a file: it takes what is written, and neither syncs nor cuts it.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::symlink;

use super::*;
use runtime::tasks::Tasks;

/// A refusal that cannot be synced is told as 451, and its sender comes again. Told 250 then, it had lost its mail when
/// the mark was on disk after all and the power went.
#[tokio::test]
async fn a_refusal_that_cannot_be_synced_is_taken_back_before_anybody_relies_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    let id = mail(1, 1).id;
    journal.append(mail(1, 1)).await.unwrap();
    let marks = segment::marks_path(folder.path(), 1);
    symlink("/dev/null", &marks).unwrap();
    journal.refuse(id).await.unwrap_err();
    assert!(journal.is_unsure(id) && journal.doubtful(&[1; 32], NOW) == Some(id));
    // A mark behind the one that may be there would make it last: this one is written when that is cut off.
    journal.hold(id, "virus").await;
    // As the disk had it.
    let mut refused = BytesMut::new();
    Mark::Refused.encode(id, &journal.key, &mut refused);
    let there = folder.path().join("there");
    fs::write(&there, &refused).unwrap();
    fs::rename(there, &marks).unwrap();
    let begun = std::time::Instant::now();
    while journal.is_unsure(id) {
        assert!(begun.elapsed() < Duration::from_secs(10), "it is not cut off");
        journal.tidy();
        tokio::task::yield_now().await;
    }
    let (index, _) = recover::recover(&config(folder.path()), "n", NOW).unwrap();
    assert_eq!((index.pending(), index.doubtful(&[1; 32], NOW)), (1, Some(id)));
    assert_eq!(journal.refuse(id).await.unwrap(), Refusal::Done, "it can be refused again");
}

/// Whatever is found is relied on: also a refusal beside an old segment that a killed process did not live to sync.
#[tokio::test]
async fn what_is_found_at_the_start_is_synced_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    for number in [1, 2] {
        let (journal, _) = open(folder.path());
        journal.append(mail(number, 1)).await.unwrap();
    }
    assert_eq!(open(folder.path()).1.pending, 2);
    symlink("/dev/null", segment::marks_path(folder.path(), 1)).unwrap();
    let refused = recover::recover(&config(folder.path()), "n", NOW).unwrap_err();
    assert!(refused.to_string().contains("syncing") && refused.to_string().contains("0000000001.marks"), "{refused:#}");
}

/// All mail was told 451 for ever, and marks went nowhere, by a process that looked well.
#[tokio::test]
async fn a_journal_whose_writer_has_ended_ends_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path());
    let tasks = Tasks::default();
    tasks.spawn_vital("journal", journal.clone().watch(tasks.clone()));
    journal.append(mail(1, 1)).await.unwrap();
    assert!(!tasks.is_stopping());
    // As after a panic: nobody receives.
    let (writer, _) = mpsc::channel(1);
    journal.writer = writer;
    tasks.spawn_vital("journal", journal.clone().watch(tasks.clone()));
    tasks.stopping().await;
    assert!(journal.append(mail(2, 1)).await.is_err());
    let error = journal.watch(Tasks::default()).await.unwrap_err().to_string();
    assert_eq!(error, "the journal's writer has ended");
}
