//! `chainmail status` and `chainmail dead`: what an operator wants to know at four in the morning.

use std::collections::BTreeMap;
use std::time::Duration;

use accept::journal::Books;
use anyhow::{Context as _, bail};
use clap::Subcommand;
use proto::{DeadLetter, Envelope, subjects};
use runtime::broker::Broker;
use runtime::clock;
use runtime::telemetry::StageFigures;
use serde::Serialize;

use crate::config::Config;
use crate::reports::{Report, Request};

/// How long answers of processes are gathered.
const GATHER: Duration = Duration::from_millis(700);
/// How long the broker is looked for.
const BROKER: Duration = Duration::from_secs(3);
/// How long an accept node may take to answer.
const NODE: Duration = Duration::from_secs(5);

/// Dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum Dead {
    /// List the dead letters.
    List,
    /// Show one.
    Show {
        /// Its number.
        number: u64,
    },
    /// Send the mail of one, or of all, round again.
    Replay {
        /// Its number, or `all`.
        number: String,
    },
    /// Give up the mail of one, or of all, for good.
    Drop {
        /// Its number, or `all`.
        number: String,
    },
}

#[derive(Debug, Serialize)]
struct Status {
    #[serde(flatten)]
    books: Books,
    balanced: bool,
    accept_nodes: Vec<String>,
    stages: BTreeMap<String, StageStatus>,
}

#[derive(Debug, Default, Serialize)]
struct StageStatus {
    workers: u64,
    settled: u64,
    failures: u64,
    waiting: u64,
    oldest_seconds: u64,
}

/// Prints the state of the chain. False when no accept node has answered, so that the books are not known.
///
/// # Errors
/// When the broker is not there.
pub(crate) async fn status(config: &Config, json: bool) -> anyhow::Result<bool> {
    let broker = Broker::connect(config.broker.clone(), "chainmail-status", BROKER).await?;
    let status = gather(config, &broker).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print(&status);
    }
    Ok(!status.accept_nodes.is_empty())
}

async fn gather(config: &Config, broker: &Broker) -> anyhow::Result<Status> {
    let mut status =
        Status { books: Books::default(), balanced: false, accept_nodes: Vec::new(), stages: BTreeMap::new() };
    for answer in broker.ask_all(subjects::STATUS.to_owned(), GATHER).await? {
        let report: Report = serde_json::from_slice(&answer).context("reading a process's report")?;
        if let Some(books) = &report.books {
            status.books.add(books);
            status.accept_nodes.push(report.node.clone());
        }
        for (stage, StageFigures { workers, settled, failures }) in report.stages {
            let sum = status.stages.entry(stage).or_default();
            sum.workers += workers;
            sum.settled += settled;
            sum.failures += failures;
        }
    }
    status.balanced = !status.accept_nodes.is_empty() && status.books.balanced();
    let filters = config.chain.iter().map(|stage| (stage.clone(), subjects::stream(stage)));
    let last = [
        (subjects::DELIVER_STAGE.to_owned(), subjects::stream(subjects::DELIVER_STAGE)),
        (subjects::STORE_STAGE.to_owned(), subjects::STORE.to_owned()),
    ];
    for (stage, stream) in filters.chain(last) {
        let info = broker
            .jetstream()
            .get_stream(&stream)
            .await
            .with_context(|| format!("stream {stream}"))?
            .get_info()
            .await?;
        let sum = status.stages.entry(stage).or_default();
        sum.waiting = info.state.messages;
        let first = u64::try_from(info.state.first_timestamp.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        sum.oldest_seconds =
            if info.state.messages == 0 { 0 } else { clock::now().since(proto::Millis(first)).as_secs() };
    }
    Ok(status)
}

fn print(status: &Status) {
    let Books { accepted, stored, held, rejected, buried, in_flight } = status.books;
    println!(
        "books     accepted {accepted} = stored {stored} + held {held} + rejected {rejected} + buried {buried} + in flight {in_flight}"
    );
    match (status.accept_nodes.is_empty(), status.balanced) {
        (true, _) => println!("          no accept node has answered: the books are not known"),
        (false, true) => println!("          balanced, from {}", status.accept_nodes.join(", ")),
        (false, false) => println!("          NOT BALANCED, from {}", status.accept_nodes.join(", ")),
    }
    println!("{:<10}{:>9}{:>9}{:>12}{:>10}{:>10}", "stage", "workers", "waiting", "oldest", "settled", "failures");
    for (name, stage) in &status.stages {
        let StageStatus { workers, settled, failures, waiting, oldest_seconds } = stage;
        println!("{name:<10}{workers:>9}{waiting:>9}{:>12}{settled:>10}{failures:>10}", format!("{oldest_seconds} s"));
    }
}

/// Carries out a command about dead letters.
///
/// # Errors
/// What is wrong with it.
pub(crate) async fn dead(config: &Config, command: Dead) -> anyhow::Result<()> {
    let broker = Broker::connect(config.broker.clone(), "chainmail-dead", BROKER).await?;
    match command {
        Dead::List => {
            for (number, letter) in letters(&broker).await? {
                let mail = envelope(&letter).map_or("unreadable".to_owned(), |mail| mail.id.to_string());
                println!("{number} {mail} {} after {} attempts: {}", letter.stage, letter.attempts, letter.reason);
            }
        }
        Dead::Show { number } => show(&broker, number).await?,
        Dead::Replay { number } => each(&broker, &number, Request::Replay).await?,
        Dead::Drop { number } => each(&broker, &number, Request::Drop).await?,
    }
    Ok(())
}

async fn letters(broker: &Broker) -> anyhow::Result<Vec<(u64, DeadLetter)>> {
    let stream = broker.jetstream().get_stream(subjects::DEAD).await?;
    let state = stream.cached_info().state.clone();
    let mut letters = Vec::new();
    if state.messages == 0 {
        return Ok(letters);
    }
    for number in state.first_sequence..=state.last_sequence {
        // Numbers in between may have been replayed or dropped.
        if let Ok(message) = stream.get_raw_message(number).await {
            letters.push((number, DeadLetter::decode(message.payload)?));
        }
    }
    Ok(letters)
}

fn envelope(letter: &DeadLetter) -> Option<Envelope> {
    Envelope::decode(letter.payload.clone()).ok()
}

async fn find(broker: &Broker, number: u64) -> anyhow::Result<DeadLetter> {
    let found = letters(broker).await?.into_iter().find(|(found, _)| *found == number);
    found
        .map(|(_, letter)| letter)
        .with_context(|| format!("there is no dead letter {number}; `chainmail dead list` shows them"))
}

async fn show(broker: &Broker, number: u64) -> anyhow::Result<()> {
    let letter = find(broker, number).await?;
    println!("stage:      {}\nreason:     {}\nattempts:   {}", letter.stage, letter.reason, letter.attempts);
    println!("age:        {} s when it was buried", letter.age.as_secs());
    match envelope(&letter) {
        None => println!(
            "mail:       unreadable, {} bytes; its journal sends it round again by itself",
            letter.payload.len()
        ),
        Some(mail) => {
            println!("mail:       {} in the journal of {}", mail.id, mail.node);
            println!("from:       <{}> at {}", mail.reverse_path, mail.client.address);
            for recipient in &mail.recipients {
                println!("to:         <{}>", recipient.address);
            }
        }
    }
    Ok(())
}

async fn each(broker: &Broker, number: &str, request: fn(String) -> Request) -> anyhow::Result<()> {
    let chosen = match number {
        "all" => letters(broker).await?,
        number => {
            let number = number.parse().with_context(|| format!("{number:?} is neither a number nor `all`"))?;
            vec![(number, find(broker, number).await?)]
        }
    };
    let stream = broker.jetstream().get_stream(subjects::DEAD).await?;
    for (number, letter) in chosen {
        if let Some(mail) = envelope(&letter) {
            let asked = serde_json::to_vec(&request(mail.id.to_string()))?;
            let answer = broker.ask(subjects::ask_accept(&mail.node), asked.into(), NODE).await?;
            let done: Result<bool, String> = serde_json::from_slice(&answer)?;
            match done {
                Ok(true) => println!("{number} {}: done", mail.id),
                Ok(false) => println!("{number} {}: nothing of it is buried any more", mail.id),
                Err(error) => bail!("{number} {}: {error}", mail.id),
            }
        }
        stream.delete_message(number).await?;
    }
    Ok(())
}
