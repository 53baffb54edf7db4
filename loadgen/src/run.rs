//! `loadgen run`: sends, watches, reads back, and tells.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use crate::accounts::addresses;
use crate::books::Books;
use crate::ledger::Ledger;
use crate::mails::{self, Mails};
use crate::mark::Span;
use crate::mix::{Composer, Mix, Shares};
use crate::profile::{Profile, Schedule};
use crate::proof::{self, Readers};
use crate::queue::{Limit, Queue};
use crate::report::{self, Proof};
use crate::sender::{Retries, Run};
use crate::smtp::{Target, any_certificate};
use crate::sources::{Range, Sources};
use crate::watch::{Awaited, watch};
use crate::{plot, verify};

/// What is sent, how, and what is done with the answers.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The SMTP server; several have their turns.
    #[arg(long, default_value = "127.0.0.1:2525")]
    pub(crate) smtp: Vec<SocketAddr>,
    /// Connections at once.
    #[arg(long, default_value_t = 16)]
    pub(crate) connections: usize,
    /// Mails on a connection; 0 is as many as there are.
    #[arg(long, default_value_t = 1)]
    pub(crate) per_connection: u32,
    /// Mails a second, due whether or not the chain keeps up. Without it: as fast as the connections allow.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// How the load goes over time.
    #[arg(long, value_enum, default_value_t = Profile::Steady)]
    pub(crate) profile: Profile,
    /// A burst comes once in so long,
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) burst_every: Duration,
    /// and lasts so long.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) burst: Duration,
    /// Bytes a second of mails that trickle.
    #[arg(long, default_value_t = 2000)]
    pub(crate) trickle: u64,
    /// Mails in all; without it and --for: 1000.
    #[arg(long)]
    pub(crate) mails: Option<u64>,
    /// No mail is begun after that.
    #[arg(long = "for", value_parser = humantime::parse_duration)]
    pub(crate) time: Option<Duration>,
    /// STARTTLS; any certificate will do.
    #[arg(long)]
    pub(crate) starttls: bool,
    /// A recipient; several may be given.
    #[arg(long)]
    pub(crate) to: Vec<String>,
    /// Without --to: so many recipients u00000, u00001 and so on, as `loadgen accounts` makes them.
    #[arg(long, default_value_t = 0)]
    pub(crate) people: u32,
    /// Their domain.
    #[arg(long, default_value = "example.org")]
    pub(crate) domain: String,
    /// Send the mails of this folder, or of this list of paths, instead of composed ones.
    #[arg(long)]
    pub(crate) folder: Option<PathBuf>,
    /// Share of composed mails when there is a folder.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) generated: f64,
    /// Addresses from which mail comes, like 127.1.0.0/16.
    #[arg(long)]
    pub(crate) source: Option<Range>,
    /// Addresses from which the --listed share comes.
    #[arg(long)]
    pub(crate) listed_source: Option<Range>,
    /// A server that answers nothing for so long has broken off.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) patience: Duration,
    /// Before the second attempt; doubled each time, up to 30 s.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) retry: Duration,
    /// A mail that was due so long ago is given up.
    #[arg(long, default_value = "10min", value_parser = humantime::parse_duration)]
    pub(crate) give_up_after: Duration,
    /// Recipients whose mailbox is watched, for the time to it; needs --imap.
    #[arg(long, default_value_t = 4)]
    pub(crate) watch: usize,
    /// How often.
    #[arg(long, default_value = "20ms", value_parser = humantime::parse_duration)]
    pub(crate) watch_every: Duration,
    /// Only watch, until what was kept is seen, and read nothing back: `loadgen verify` does that later.
    #[arg(long, requires = "ledger")]
    pub(crate) verify_later: bool,
    /// What may not change behind a mail's mark.
    #[arg(long, value_enum, default_value_t = Span::Whole)]
    pub(crate) unchanged: Span,
    /// Write what is sent, and what is answered, for `loadgen verify`; also when loadgen is killed.
    #[arg(long)]
    pub(crate) ledger: Option<PathBuf>,
    /// Tell it as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Draw rate and latency over time, as SVG.
    #[arg(long)]
    pub(crate) plot: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) shares: Shares,
    #[command(flatten)]
    pub(crate) reading: verify::Reading,
}

/// Runs. Whether the chain has kept its word, or nothing was read back.
///
/// # Errors
/// When something is wrong with the options, or a file, or it was interrupted twice.
pub(crate) async fn run(options: Options) -> anyhow::Result<bool> {
    let seed = options.shares.seed.unwrap_or_else(rand::random);
    let readers = options.reading.readers(options.unchanged);
    let run = Arc::new(prepare(&options, seed)?);
    eprintln!("run {}, seed {seed}", run.mails.run);
    tokio::select! {
        done = work(&options, seed, readers.as_ref(), &run) => done,
        () = interrupted(&run) => bail!("interrupted: `loadgen verify` can read back, if there is a ledger"),
    }
}

/// The first ctrl-C ends the sending; this is over with the second.
async fn interrupted(run: &Run) {
    if tokio::signal::ctrl_c().await.is_ok() {
        run.queue.end();
        eprintln!("no new mails; waiting for the last words, and reading back. Once more to give up");
        if tokio::signal::ctrl_c().await.is_ok() {
            return;
        }
    }
    std::future::pending().await
}

async fn work(options: &Options, seed: u64, readers: Option<&Readers>, run: &Arc<Run>) -> anyhow::Result<bool> {
    let mut watchers = JoinSet::new();
    if let Some(server) = options.reading.imap {
        for person in run.people.iter().take(options.watch) {
            let password = options.reading.password.clone();
            watchers.spawn(watch(Arc::clone(run), server, password, person.clone(), options.watch_every));
        }
    }
    send(options, run).await?;
    run.ledger.end()?;
    eprintln!("every mail has its last word");
    if options.verify_later {
        run.awaited.settle(options.reading.settle).await;
    }
    let proof = match readers {
        Some(readers) if !options.verify_later => {
            let unread = proof::prove(readers, &run.books).await;
            Some(Proof { verdict: run.books().verdict(), unread })
        }
        _ => None,
    };
    watchers.abort_all();
    let (books, mut measured) = (run.books(), run.measure.so_far());
    measured.unseen = run.awaited.left();
    if let Some(path) = &options.plot {
        let picture = plot::svg(&format!("run {}, seed {seed}", run.mails.run), &measured);
        std::fs::write(path, picture).with_context(|| format!("writing {}", path.display()))?;
    }
    if options.json {
        println!("{:#}", report::json(&run.mails.run, seed, &books, &measured, proof.as_ref()));
    } else {
        print!("{}", report::text(&run.mails.run, seed, &books, &measured, proof.as_ref()));
    }
    Ok(proof.is_none_or(|proof| proof.is_good()))
}

/// Whether the options can be followed together.
fn fit_together(options: &Options) -> anyhow::Result<()> {
    let is_burst = options.profile == Profile::Burst;
    if is_burst && options.rate.is_none() {
        bail!("--profile burst needs --rate: ten times as fast as possible is not faster");
    }
    if is_burst && (options.burst > options.burst_every || options.burst_every.is_zero()) {
        bail!("--burst must not be longer than --burst-every");
    }
    if options.rate.is_some_and(|rate| !RATES.contains(&rate)) {
        bail!("--rate must be from {} to {}", RATES.start(), RATES.end());
    }
    if options.shares.listed > 0.0 && options.listed_source.is_none() {
        bail!("--listed needs --listed-source");
    }
    Ok(())
}

/// Mails a second that can be counted: from one in three hours to more than a machine can send.
const RATES: RangeInclusive<f64> = 1e-4..=1e7;

/// The recipients, each once: whoever is there twice would get mail twice. In small letters, as the chain knows them.
fn people(options: &Options) -> anyhow::Result<Vec<String>> {
    let people: Vec<String> = match (options.to.as_slice(), options.people) {
        (to @ [_, ..], 0) => to.iter().map(|to| to.to_lowercase()).collect(),
        ([], people) if people > 0 => addresses(people, &options.domain.to_lowercase()),
        _ => bail!("recipients are named by --to, or numbered by --people"),
    };
    let quarantine = options.reading.quarantine.iter().map(|address| address.to_lowercase());
    let mut known: HashSet<String> = quarantine.collect();
    match people.iter().find(|person| !known.insert((*person).clone())) {
        Some(twice) => bail!("{twice} is given twice"),
        None => Ok(people),
    }
}

fn prepare(options: &Options, seed: u64) -> anyhow::Result<Run> {
    fit_together(options)?;
    let people = people(options)?;
    let mut shares = options.shares.clone();
    if options.profile == Profile::Slow {
        shares.slow = 1.0;
    }
    let count = u32::try_from(people.len()).context("so many recipients have no numbers")?;
    let now = runtime::clock::now().0;
    let date = mail_parser::DateTime::from_timestamp(i64::try_from(now / 1000)?).to_rfc822();
    let mails = Mails {
        // Two that begin at once are two.
        run: format!("{now:x}{:04x}", rand::random::<u16>()),
        span: options.unchanged,
        composer: Composer::new(seed, &shares, date)?,
        mix: Mix::new(seed, count, shares),
        files: options.folder.as_deref().map(mails::files).transpose()?.unwrap_or_default(),
        generated: options.generated.clamp(0.0, 1.0),
    };
    let (rate, profile, every, burst) = (options.rate, options.profile, options.burst_every, options.burst);
    let usual = if options.time.is_some() { u64::MAX } else { 1000 };
    let limit = Limit { mails: options.mails.unwrap_or(usual), time: options.time };
    let ledger = Ledger::begin(options.ledger.as_deref(), options.unchanged, &people)?;
    let mut books = Books::default();
    people.iter().for_each(|person| books.person(person));
    let watched = people.iter().take(if options.reading.imap.is_some() { options.watch } else { 0 });
    Ok(Run {
        awaited: Awaited::new(watched.cloned()),
        queue: Queue::new(Schedule { rate, profile, every, burst }, limit),
        mails,
        people,
        target: Target {
            servers: options.smtp.clone(),
            tls: if options.starttls { Some(any_certificate()?) } else { None },
            patience: options.patience,
            trickle: options.trickle,
        },
        sources: Sources::new(options.source, options.listed_source),
        retries: Retries { first: options.retry, most: RETRY_MOST, give_up_after: options.give_up_after },
        per_connection: options.per_connection,
        books: Mutex::new(books),
        ledger,
        measure: Default::default(),
    })
}

/// The longest wait before an attempt: a test is not to wait for the retries of a real queue.
const RETRY_MOST: Duration = Duration::from_secs(30);

async fn send(options: &Options, run: &Arc<Run>) -> anyhow::Result<()> {
    let mut senders = JoinSet::new();
    for sender in 0..options.connections.max(1) {
        senders.spawn(Arc::clone(run).send(sender));
    }
    let bar = bar(options);
    let mut second = tokio::time::interval(Duration::from_millis(250));
    let mut failed = Ok(());
    loop {
        tokio::select! {
            done = senders.join_next() => match done {
                None => break,
                Some(done) => failed = failed.and(done.context("a sender panicked").and_then(|done| done)),
            },
            _ = second.tick() => tell(&bar, run),
        }
    }
    bar.finish_and_clear();
    failed
}

/// Drawn on a terminal only.
fn bar(options: &Options) -> ProgressBar {
    let known = options.mails.or_else(|| Some((options.rate? * options.time?.as_secs_f64()) as u64));
    let known = known.or(options.time.is_none().then_some(1000));
    let (bar, template) = match known {
        Some(mails) => (ProgressBar::new(mails), "{elapsed_precise} [{bar:30}] {pos}/{len} {msg}"),
        None => (ProgressBar::no_length(), "{elapsed_precise} {spinner} {pos} {msg}"),
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn tell(bar: &ProgressBar, run: &Run) {
    let (kept, refused, deferred, rate) = run.measure.counts(run.queue.start().elapsed());
    bar.set_position(kept + refused);
    let waiting = run.queue.deferred();
    bar.set_message(format!("{rate}/s, {kept} kept, {refused} refused, {deferred} put off, {waiting} waiting"));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }

    fn prepared(arguments: &str) -> anyhow::Result<Vec<String>> {
        let options = Alone::try_parse_from(["run"].into_iter().chain(arguments.split_whitespace()))?.options;
        prepare(&options, 1).map(|run| run.people)
    }

    #[test]
    fn who_gets_mail() {
        assert_eq!(prepared("--people 2 --domain X.example").unwrap(), ["u00000@x.example", "u00001@x.example"]);
        assert_eq!(prepared("--to A@x --to b@x").unwrap(), ["a@x", "b@x"]);
        // Half of its mail would seem to be doubled.
        for bad in ["", "--people 2 --to a@x", "--to a@x --to A@x", "--to q@x --quarantine Q@x"] {
            assert!(prepared(bad).is_err(), "{bad}");
        }
    }

    /// A server that bears one mail on a connection, and says so, or not, when the next is begun.
    async fn serve_one_each(listener: tokio::net::TcpListener, farewell: &'static [u8]) {
        use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (mut stream, mut line, mut in_body, mut is_full) = (BufReader::new(stream), Vec::new(), false, false);
            stream.write_all(b"220 a\r\n").await.unwrap();
            while stream.read_until(b'\n', &mut line).await.unwrap() > 0 {
                let reply: &[u8] = match (in_body, line.as_slice()) {
                    (true, b".\r\n") => {
                        (in_body, is_full) = (false, true);
                        b"250 kept\r\n"
                    }
                    (true, _) => b"",
                    (false, b"DATA\r\n") => {
                        in_body = true;
                        b"354 d\r\n"
                    }
                    (false, _) if is_full => farewell,
                    (false, _) => b"250 b\r\n",
                };
                stream.write_all(reply).await.unwrap();
                if is_full && reply == farewell {
                    break;
                }
                line.clear();
            }
        }
    }

    /// A retry would take an hour.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_kept_connection_that_was_closed_is_made_anew_at_once() {
        for farewell in [&b"421 enough\r\n"[..], b""] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let arguments = format!(
                "run --smtp {} --to a@x --mails 3 --connections 1 --per-connection 0 --retry 1h --give-up-after 3h",
                listener.local_addr().unwrap()
            );
            let options = Alone::try_parse_from(arguments.split_whitespace()).unwrap().options;
            let run = Arc::new(prepare(&options, 1).unwrap());
            let sent = async {
                tokio::select! {
                    sent = send(&options, &run) => sent.unwrap(),
                    () = serve_one_each(listener, farewell) => {}
                }
            };
            tokio::time::timeout(Duration::from_secs(20), sent).await.unwrap();
            let measured = run.measure.so_far();
            assert_eq!((measured.counts(), measured.connect.count()), ((3, 0, 0), 3));
        }
    }

    #[test]
    fn options_that_do_not_fit() {
        for (options, good) in [
            ("--rate 10 --profile burst", true),
            ("--profile burst", false),
            ("--rate 10 --profile burst --burst 5s --burst-every 4s", false),
            ("--rate 10 --profile burst --burst 0s --burst-every 0s", false),
            ("--rate 0", false),
            ("--rate nan", false),
            ("--rate 1e300", false),
            ("--listed 0.5", false),
            ("--listed 0.5 --listed-source 127.64.0.0/10", true),
            ("--spam 1.1", false),
            ("--slow nan", false),
            ("--verify-later", false),
            ("--pop3 127.0.0.1:1110", true),
            ("--pop3 127.0.0.1:1110 --imap 127.0.0.1:1143", false),
        ] {
            assert_eq!(prepared(&format!("--people 2 {options}")).is_ok(), good, "{options}");
        }
    }
}
