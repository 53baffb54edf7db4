//! Deliveries into one node: bodies of 8 KB that do not compress, 20,000 accounts, everything synced, as many
//! deliveries at once as the ingest has workers. `cargo bench -p store`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use runtime::config::{Section, Sheet};
use store::shard::{Admission, Delivery, Outlined};
use store::{Config, Node};

const ACCOUNTS: u64 = 20_000;

fn delivery(number: u64) -> Delivery {
    let mut mail = [0; 16];
    mail[..8].copy_from_slice(&number.to_le_bytes());
    let mut body = vec![0; 8192];
    blake3::Hasher::new().update(&mail).finalize_xof().fill(&mut body);
    let account = i64::try_from(number.wrapping_mul(7919) % ACCOUNTS).unwrap() + 1;
    Delivery {
        mail,
        target: format!("user{account}@example.org"),
        account,
        folder: "INBOX".into(),
        prefix: Bytes::from_static(b"Delivered-To: somebody@example.org\r\n"),
        digest: *blake3::hash(&body).as_bytes(),
        outline: Outlined::of(&body),
        body: body.into(),
        received: 1_800_000_000_000,
        admission: Admission::IfRoom { bytes: 0, messages: 0 },
        held: String::new(),
        held_for: String::new(),
    }
}

async fn deliver(node: &Node, at_once: u64, mails: u64, next: &AtomicU64) {
    let worker = |worker: u64| {
        let node = node.clone();
        let first = next.fetch_add(mails / at_once + 1, Ordering::Relaxed);
        let share = (worker..mails).step_by(usize::try_from(at_once).unwrap()).count() as u64;
        async move {
            for number in first..first + share {
                node.deliver(delivery(number)).await.unwrap();
            }
        }
    };
    futures::future::join_all((0..at_once).map(worker)).await;
}

fn ingest(criterion: &mut Criterion) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sheet = Rc::new(RefCell::new(Sheet::default()));
    let config = Config::read(Section::root(serde_json::json!({}), sheet), folder.path());
    let node = Node::open(&config, "bench").unwrap();
    let next = AtomicU64::new(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("ingest");
    group.throughput(Throughput::Elements(1)).sample_size(10).measurement_time(Duration::from_secs(8));
    for at_once in [32, 128, 512] {
        group.bench_function(format!("{at_once} at once"), |bencher| {
            bencher.iter_custom(|mails| {
                let begun = Instant::now();
                runtime.block_on(deliver(&node, at_once, mails, &next));
                begun.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, ingest);
criterion_main!(benches);
