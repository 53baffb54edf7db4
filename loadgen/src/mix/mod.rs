//! The mix: what kinds of mail there are, how large, for how many, in which share. Pure: mail number n of a seed is the
//! same in every run, and is made anew for each attempt, so that nothing has to be kept of a mail that waits.

mod attachments;
mod compose;
mod words;

use std::ops::RangeInclusive;

use clap::Args;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

pub(crate) use compose::Composer;

/// The largest text. Beyond it log-normal sizes would be mails that nobody writes by hand; large mails have
/// attachments.
const TEXT_MOST: f64 = 300_000.0;
/// The smallest: a greeting.
const TEXT_LEAST: f64 = 200.0;

/// The shares of a mix.
#[derive(Debug, Clone, Args)]
pub(crate) struct Shares {
    /// The seed of everything that is drawn; drawn itself if not given, and printed.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Median of a text's size in bytes; the sizes are log-normal.
    #[arg(long, default_value_t = 15_000.0)]
    pub(crate) median: f64,
    /// Their spread: the standard deviation of the logarithm.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) sigma: f64,
    /// Share of mails with an attachment of 0.3 to 10 MB.
    #[arg(long, default_value_t = 0.02, value_parser = share)]
    pub(crate) attachments: f64,
    /// Share of spam.
    #[arg(long, default_value_t = 0.1, value_parser = share)]
    pub(crate) spam: f64,
    /// Share of mails with the EICAR test file.
    #[arg(long, default_value_t = 0.005, value_parser = share)]
    pub(crate) virus: f64,
    /// Share of mails that come from addresses of --listed-source.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub(crate) listed: f64,
    /// Share of mails that are part of a storm: the same mail to one after the other.
    #[arg(long, default_value_t = 0.1, value_parser = share)]
    pub(crate) repeat: f64,
    /// Mails of a storm.
    #[arg(long, default_value_t = 50)]
    pub(crate) storm: u64,
    /// Recipients of every mail. If not given, 92 % have one, 7 % two to five, 1 % up to a hundred.
    #[arg(long)]
    pub(crate) recipients: Option<usize>,
    /// Share of mails whose bytes trickle; --profile slow makes it all. They have no attachments.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub(crate) slow: f64,
    /// A folder of texts, from which the words come instead of from our own lists.
    #[arg(long)]
    pub(crate) corpora: Option<std::path::PathBuf>,
}

/// What a mail is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What people write.
    Plain,
    /// What nobody wants.
    Spam,
    /// The EICAR test file is in it: it may be in no mailbox.
    Virus,
}

/// A mail that has not been composed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Draft {
    /// What is in it: mails of a storm share it, and are the same byte for byte.
    pub(crate) content: u64,
    /// What it is.
    pub(crate) kind: Kind,
    /// Bytes of its text.
    pub(crate) text: usize,
    /// Bytes of its attachment.
    pub(crate) attachment: Option<usize>,
    /// The recipients by number, each once.
    pub(crate) to: Vec<u32>,
    /// Whether it comes from an address that is on a list.
    pub(crate) listed: bool,
    /// Whether its bytes trickle.
    pub(crate) slow: bool,
}

/// Draws mails.
#[derive(Debug, Clone)]
pub(crate) struct Mix {
    seed: u64,
    people: u32,
    shares: Shares,
}

/// Randomness for one purpose and one number, independent of every other.
fn draw(seed: u64, purpose: &str, number: u64) -> StdRng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(&number.to_le_bytes()).update(purpose.as_bytes());
    StdRng::from_seed(*hasher.finalize().as_bytes())
}

impl Mix {
    /// A mix for so many people.
    pub(crate) fn new(seed: u64, people: u32, shares: Shares) -> Self {
        Self { seed, people: people.max(1), shares }
    }

    /// Mail number `number`.
    pub(crate) fn draft(&self, number: u64) -> Draft {
        let shares = &self.shares;
        // A storm to more people than there are would reach some of them twice.
        let storm = shares.storm.clamp(1, u64::from(self.people));
        let first = number / storm * storm;
        let is_storm = storm > 1 && draw(self.seed, "storm", first).random_bool(shares.repeat);
        let content = if is_storm { first } else { number };
        let mut random = draw(self.seed, "content", content);
        let kind = kind(&mut random, shares);
        let text = (shares.median * (shares.sigma * normal(&mut random)).exp()).clamp(TEXT_LEAST, TEXT_MOST);
        let attached = random.random_bool(shares.attachments);
        let attachment = attached.then(|| log_uniform(&mut random, 300_000.0..=10_000_000.0));
        let (listed, slow) = (random.random_bool(shares.listed), random.random_bool(shares.slow));
        // At 2 KB a second an attachment would take hours.
        let attachment = attachment.filter(|_| !slow);
        let to = if is_storm {
            let base = draw(self.seed, "base", first).random_range(0..self.people);
            let step = u32::try_from(number - first).unwrap_or(0);
            vec![(base + step) % self.people]
        } else {
            let count = shares.recipients.unwrap_or_else(|| recipients(&mut random));
            self.some_people(&mut random, count)
        };
        Draft { content, kind, text: text as usize, attachment, to, listed, slow }
    }

    /// So many of the people, each once; all of them when there are fewer.
    fn some_people(&self, random: &mut StdRng, count: usize) -> Vec<u32> {
        let count = count.clamp(1, self.people as usize);
        rand::seq::index::sample(random, self.people as usize, count).into_iter().map(|index| index as u32).collect()
    }
}

/// A share is from 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("{text} is no number"))?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share is from 0 to 1".to_owned()) }
}

fn kind(random: &mut StdRng, shares: &Shares) -> Kind {
    let drawn: f64 = random.random();
    if drawn < shares.virus {
        Kind::Virus
    } else if drawn < shares.virus + shares.spam {
        Kind::Spam
    } else {
        Kind::Plain
    }
}

fn recipients(random: &mut StdRng) -> usize {
    match random.random_range(0..100) {
        0..92 => 1,
        92..99 => random.random_range(2..=5),
        _ => random.random_range(6..=100),
    }
}

/// A standard normal variable, by Box and Muller.
fn normal(random: &mut StdRng) -> f64 {
    let (radius, angle): (f64, f64) = (1.0 - random.random::<f64>(), random.random());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

/// A size whose logarithm is spread evenly: there are as many from 0.3 to 1 MB as from 3 to 10 MB.
fn log_uniform(random: &mut StdRng, range: RangeInclusive<f64>) -> usize {
    random.random_range(range.start().ln()..=range.end().ln()).exp() as usize
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        shares: Shares,
    }

    pub(crate) fn shares(arguments: &[&str]) -> Shares {
        Alone::parse_from(["test"].iter().chain(arguments)).shares
    }

    fn drafts(arguments: &[&str]) -> Vec<Draft> {
        let mix = Mix::new(7, 1000, shares(arguments));
        (0..20_000).map(|number| mix.draft(number)).collect()
    }

    #[track_caller]
    fn share(drafts: &[Draft], what: impl Fn(&Draft) -> bool, want: RangeInclusive<f64>) {
        let share = drafts.iter().filter(|draft| what(draft)).count() as f64 / drafts.len() as f64;
        assert!(want.contains(&share), "{share} is not within {want:?}");
    }

    #[test]
    fn the_shares_are_those_of_the_mix() {
        let drafts = drafts(&["--repeat", "0", "--listed", "0.3", "--slow", "0.05"]);
        share(&drafts, |draft| draft.kind == Kind::Spam, 0.09..=0.11);
        share(&drafts, |draft| draft.kind == Kind::Virus, 0.003..=0.007);
        share(&drafts, |draft| draft.attachment.is_some(), 0.017..=0.023);
        share(&drafts, |draft| draft.listed, 0.28..=0.32);
        share(&drafts, |draft| draft.slow, 0.04..=0.06);
        share(&drafts, |draft| draft.to.len() == 1, 0.91..=0.93);
        share(&drafts, |draft| (2..=5).contains(&draft.to.len()), 0.06..=0.08);
        share(&drafts, |draft| (6..=100).contains(&draft.to.len()), 0.007..=0.013);
        share(&drafts, |draft| draft.text < 15_000, 0.48..=0.52);
        // One standard deviation.
        share(&drafts, |draft| draft.text < (15_000.0 * 1_f64.exp()) as usize, 0.83..=0.85);
        assert!(drafts.iter().filter_map(|draft| draft.attachment).all(|size| (300_000..=10_000_000).contains(&size)));
    }

    #[test]
    fn nobody_gets_a_mail_twice() {
        for repeat in ["0", "0.5", "1"] {
            for people in [1, 2, 30, 1000] {
                let mix = Mix::new(3, people, shares(&["--repeat", repeat]));
                let mut pairs = std::collections::HashSet::new();
                for draft in (0..3000).map(|number| mix.draft(number)) {
                    assert!(draft.to.iter().all(|person| *person < people));
                    assert!(draft.to.iter().all(|person| pairs.insert((draft.content, *person))), "{draft:?}");
                }
            }
        }
    }

    #[test]
    fn a_storm_is_one_mail_to_many() {
        let drafts = drafts(&["--repeat", "0.2"]);
        share(&drafts, |draft| drafts.iter().take(200).any(|other| other.content == draft.content), 0.005..=0.02);
        let storm = |draft: &&Draft| drafts[draft.content as usize].to != draft.to;
        let mails = drafts.iter().filter(storm).count() as f64 / drafts.len() as f64;
        assert!((0.15..=0.25).contains(&mails), "{mails}");
        for draft in drafts.iter().filter(storm) {
            let first = &drafts[draft.content as usize];
            assert_eq!((draft.kind, draft.text, draft.attachment), (first.kind, first.text, first.attachment));
        }
    }

    #[test]
    fn the_seed_is_all_that_matters() {
        let of = |seed| (0..200).map(|number| Mix::new(seed, 50, shares(&[])).draft(number)).collect::<Vec<_>>();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
