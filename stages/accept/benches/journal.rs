//! What a sync costs when senders share it: 64 senders at once against one after the other, mails of 4 KB. One mail at
//! a time is one sync for each mail. `cargo bench -p accept`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use accept::journal::{Config, Journal, Mail};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use proto::{MailId, Millis};
use runtime::config::{Section, Sheet};

const NOW: Millis = Millis(1_800_000_000_000);

fn config(folder: &std::path::Path) -> Config {
    let sheet = Rc::new(RefCell::new(Sheet::default()));
    let value = serde_json::json!({"max_bytes": "64GiB", "max_mails": 10_000_000, "min_free": "0"});
    Config::read(Section::root(value, sheet), folder)
}

fn mail(number: u64, body: &Bytes) -> Mail {
    let mut doubt = [0; 32];
    doubt[..8].copy_from_slice(&number.to_le_bytes());
    Mail {
        id: MailId::new(NOW, number.into()),
        recipients: 1,
        envelope: Bytes::from_static(&[7; 300]),
        body: body.clone(),
        doubt,
        each: Vec::new(),
    }
}

/// So many mails from so many senders, each of whom waits for its own before the next.
async fn append(journal: &Journal, senders: u64, mails: u64, next: &AtomicU64, body: &Bytes) {
    let sender = |sender: u64| async move {
        for _ in (sender..mails).step_by(usize::try_from(senders).unwrap()) {
            journal.append(mail(next.fetch_add(1, Ordering::Relaxed), body)).await.unwrap();
        }
    };
    futures::future::join_all((0..senders).map(sender)).await;
}

fn journal(criterion: &mut Criterion) {
    // A folder on the disk, not one in memory: a sync has to be one.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (journal, _) = Journal::open(config(folder.path()), "bench", NOW).unwrap();
    let (next, body) = (AtomicU64::new(1), Bytes::from(vec![b'x'; 4096]));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("journal");
    group.throughput(Throughput::Elements(1)).sample_size(10).measurement_time(Duration::from_secs(4));
    for senders in [1, 8, 64] {
        group.bench_function(format!("{senders} senders"), |bencher| {
            bencher.iter_custom(|mails| {
                let begun = Instant::now();
                runtime.block_on(append(&journal, senders, mails, &next, &body));
                begun.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, journal);
criterion_main!(benches);
