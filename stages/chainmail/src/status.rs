//! `chainmail status` and `chainmail dead`: what an operator wants to know at four in the morning.

use std::collections::BTreeMap;
use std::time::Duration;

use accept::journal::Books;
use anyhow::{Context as _, bail};
use async_nats::jetstream::stream::RawMessageErrorKind;
use clap::Subcommand;
use proto::{DeadLetter, Envelope, Malformed, subjects};
use runtime::broker::Broker;
use runtime::clock;
use runtime::telemetry::StageFigures;
use serde::Serialize;

use crate::config::Config;
use crate::output::say;
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

#[derive(Debug, Default, Serialize)]
struct Status {
    #[serde(flatten)]
    books: Books,
    balanced: bool,
    /// The books of each accept node that has answered.
    accept_nodes: BTreeMap<String, Books>,
    /// Accept nodes that the broker knows of and that have not answered.
    silent_nodes: Vec<String>,
    stages: BTreeMap<String, StageStatus>,
    /// What could not be found out.
    problems: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
struct StageStatus {
    workers: u64,
    settled: u64,
    failures: u64,
    /// Not known when the broker does not have the stage's stream.
    waiting: Option<u64>,
    oldest_seconds: Option<u64>,
}

/// Prints the state of the chain. False when the books do not balance, or are not known in full.
///
/// # Errors
/// When the broker is not there.
pub(crate) async fn status(config: &Config, json: bool) -> anyhow::Result<bool> {
    let broker = Broker::connect(config.broker.clone(), "chainmail-status", BROKER).await?;
    let status = gather(config, &broker).await;
    if json {
        say(format_args!("{}", serde_json::to_string_pretty(&status)?))?;
    } else {
        print(&status)?;
    }
    Ok(status.balanced && status.silent_nodes.is_empty() && status.problems.is_empty())
}

async fn gather(config: &Config, broker: &Broker) -> Status {
    let mut status = Status::default();
    match broker.ask_all(subjects::STATUS.to_owned(), GATHER).await {
        Ok(answers) => answers.iter().for_each(|answer| status.take(answer)),
        Err(error) => status.problems.push(format!("no process could be asked: {error:#}")),
    }
    status.balanced = !status.accept_nodes.is_empty() && status.books.balanced();
    match broker.consumers(subjects::ENDED).await {
        Ok(consumers) => {
            let nodes = consumers.iter().filter_map(|name| subjects::ended_node(name));
            status.silent_nodes =
                nodes.filter(|node| !status.accept_nodes.contains_key(*node)).map(str::to_owned).collect();
        }
        Err(error) => status.problems.push(format!("{error:#}")),
    }
    let filters = config.chain.iter().map(|stage| (stage.clone(), subjects::stream(stage)));
    let last = [
        (subjects::DELIVER_STAGE.to_owned(), subjects::stream(subjects::DELIVER_STAGE)),
        (subjects::STORE_STAGE.to_owned(), subjects::STORE.to_owned()),
    ];
    for (stage, stream) in filters.chain(last) {
        let sum = status.stages.entry(stage).or_default();
        match broker.state(&stream).await {
            Ok(state) => {
                let first = u64::try_from(state.first_timestamp.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
                let age = clock::now().since(proto::Millis(first)).as_secs();
                sum.waiting = Some(state.messages);
                sum.oldest_seconds = Some(if state.messages == 0 { 0 } else { age });
            }
            Err(error) => status.problems.push(format!("{error:#}")),
        }
    }
    status
}

impl Status {
    /// Adds what one process says.
    fn take(&mut self, answer: &[u8]) {
        let report: Report = match serde_json::from_slice(answer) {
            Ok(report) => report,
            Err(error) => {
                return self.problems.push(format!("a process gave a report that cannot be read: {error}"));
            }
        };
        if let Some(books) = &report.books {
            self.books.add(books);
            self.accept_nodes.entry(report.node).or_default().add(books);
        }
        for (stage, StageFigures { workers, settled, failures }) in report.stages {
            let sum = self.stages.entry(stage).or_default();
            sum.workers += workers;
            sum.settled += settled;
            sum.failures += failures;
        }
    }
}

fn print(status: &Status) -> std::io::Result<()> {
    let Books { accepted, stored, held, rejected, buried, in_flight } = status.books;
    say(format_args!(
        "books     accepted {accepted} = stored {stored} + held {held} + rejected {rejected} + buried {buried} + in \
         flight {in_flight}"
    ))?;
    match (status.accept_nodes.is_empty(), status.balanced) {
        (true, _) => say(format_args!("          no accept node has answered: the books are not known"))?,
        (false, true) => say(format_args!("          balanced"))?,
        (false, false) => say(format_args!("          NOT BALANCED"))?,
    }
    for (node, books) in &status.accept_nodes {
        let wrong = if books.balanced() { "" } else { ", NOT BALANCED" };
        say(format_args!("          {node}: accepted {}, in flight {}{wrong}", books.accepted, books.in_flight))?;
    }
    for node in &status.silent_nodes {
        say(format_args!("          {node} HAS NOT ANSWERED: what it accepted is not in these books"))?;
    }
    say(format_args!(
        "{:<10}{:>9}{:>9}{:>12}{:>10}{:>10}",
        "stage", "workers", "waiting", "oldest", "settled", "failures"
    ))?;
    for (name, stage) in &status.stages {
        let StageStatus { workers, settled, failures, .. } = stage;
        let waiting = stage.waiting.map_or_else(|| "?".to_owned(), |waiting| waiting.to_string());
        let oldest = stage.oldest_seconds.map_or_else(|| "?".to_owned(), |seconds| format!("{seconds} s"));
        say(format_args!("{name:<10}{workers:>9}{waiting:>9}{oldest:>12}{settled:>10}{failures:>10}"))?;
    }
    for problem in &status.problems {
        say(format_args!("problem   {problem}"))?;
    }
    Ok(())
}

/// Carries out a command about dead letters.
///
/// # Errors
/// What is wrong with it.
pub(crate) async fn dead(config: &Config, command: Dead) -> anyhow::Result<()> {
    let broker = Broker::connect(config.broker.clone(), "chainmail-dead", BROKER).await?;
    match command {
        Dead::List => {
            let letters = letters(&broker).await?;
            if letters.is_empty() {
                eprintln!("there are no dead letters");
            }
            for (number, letter) in letters {
                let Ok(letter) = letter else {
                    say(format_args!("{number} unreadable; `chainmail dead drop {number}` removes the letter alone"))?;
                    continue;
                };
                let mail = envelope(&letter).map_or("unreadable".to_owned(), |mail| mail.id.to_string());
                say(format_args!(
                    "{number} {mail} {} after {} attempts: {}",
                    letter.stage, letter.attempts, letter.reason
                ))?;
            }
        }
        Dead::Show { number } => show(&broker, number).await?,
        Dead::Replay { number } => each(&broker, &number, Request::Replay).await?,
        Dead::Drop { number } => each(&broker, &number, Request::Drop).await?,
    }
    Ok(())
}

/// A letter, or why it cannot be read: one that is damaged must not hide the others.
type Letter = Result<DeadLetter, Malformed>;

async fn letters(broker: &Broker) -> anyhow::Result<Vec<(u64, Letter)>> {
    let stream = broker.jetstream().get_stream(subjects::DEAD).await?;
    let state = stream.cached_info().state.clone();
    let mut letters = Vec::new();
    if state.messages == 0 {
        return Ok(letters);
    }
    for number in state.first_sequence..=state.last_sequence {
        match stream.get_raw_message(number).await {
            Ok(message) => letters.push((number, DeadLetter::decode(message.payload))),
            // It was replayed or dropped.
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {}
            Err(error) => return Err(error).with_context(|| format!("reading dead letter {number}")),
        }
    }
    Ok(letters)
}

fn envelope(letter: &DeadLetter) -> Option<Envelope> {
    Envelope::decode(letter.payload.clone()).ok()
}

async fn find(broker: &Broker, number: u64) -> anyhow::Result<Letter> {
    let found = letters(broker).await?.into_iter().find(|(found, _)| *found == number);
    found
        .map(|(_, letter)| letter)
        .with_context(|| format!("there is no dead letter {number}; `chainmail dead list` shows them"))
}

async fn show(broker: &Broker, number: u64) -> anyhow::Result<()> {
    let letter = find(broker, number).await?.with_context(|| format!("dead letter {number} is unreadable"))?;
    say(format_args!("stage:      {}\nreason:     {}\nattempts:   {}", letter.stage, letter.reason, letter.attempts))?;
    say(format_args!("age:        {} s when it was buried", letter.age.as_secs()))?;
    match envelope(&letter) {
        None => say(format_args!(
            "mail:       unreadable, {} bytes; its journal sends it round again by itself",
            letter.payload.len()
        ))?,
        Some(mail) => {
            say(format_args!("mail:       {} in the journal of {}", mail.id, mail.node))?;
            say(format_args!("from:       <{}> at {}", mail.reverse_path, mail.client.address))?;
            for recipient in &mail.recipients {
                say(format_args!("to:         <{}>", recipient.address))?;
            }
        }
    }
    Ok(())
}

async fn each(broker: &Broker, which: &str, request: fn(String, Vec<u32>) -> Request) -> anyhow::Result<()> {
    let chosen = match which {
        "all" => letters(broker).await?,
        number => {
            let number = number.parse().with_context(|| format!("{number:?} is neither a number nor `all`"))?;
            vec![(number, find(broker, number).await?)]
        }
    };
    let stream = broker.jetstream().get_stream(subjects::DEAD).await?;
    for (number, letter) in chosen {
        match letter.as_ref().map(envelope) {
            Ok(Some(mail)) => say(format_args!("{number} {}: {}", mail.id, decided(broker, &mail, request).await?))?,
            Ok(None) => say(format_args!(
                "{number}: its mail cannot be read here; the letter goes, its journal sends the mail round again"
            ))?,
            // Nobody knows which mail it stands for, so it stays until somebody means it by its number.
            Err(error) if which == "all" => {
                say(format_args!("{number} is left: {error}"))?;
                continue;
            }
            Err(error) => {
                say(format_args!("{number}: {error}; the letter goes, its mail stays buried while there are others"))?
            }
        }
        stream.delete_message(number).await?;
    }
    Ok(())
}

/// What the accept node says that has the mail in its journal.
async fn decided(
    broker: &Broker,
    mail: &Envelope,
    request: fn(String, Vec<u32>) -> Request,
) -> anyhow::Result<&'static str> {
    // The letter of a copy stands for its recipients alone; that of a mail which was not routed yet, for all.
    let recipients = mail.targets.iter().map(|target| target.recipient).collect();
    let asked = serde_json::to_vec(&request(mail.id.to_string(), recipients))?;
    let answer = broker.ask(subjects::ask_accept(&mail.node), asked.into(), NODE).await?;
    match serde_json::from_slice::<Result<bool, String>>(&answer)? {
        Ok(true) => Ok("done"),
        Ok(false) => Ok("nothing of it is buried any more"),
        Err(error) => bail!("{}: {error}", mail.id),
    }
}
