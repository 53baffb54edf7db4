//! Whether the broker's streams take what is published. That there is a connection does not say so.
//!
//! A stream whose disk was full stays shut until nats-server is started again, whether there is room by then or not. It
//! neither confirms nor refuses what is published, while the server answers every question and its other streams go on.
//! So there is one sign of it: a publish that waited in vain for all its time, while nothing else on its stream was
//! confirmed. In doubt a stream is well: what is wrongly called shut costs a restart of the broker.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// What is wrong with a broker that is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It answers no question about streams.
    NoStreams,
    /// This stream takes nothing.
    Shut(String),
    /// The streams cannot be brought in order, for this reason.
    Disorder(String),
}

impl Trouble {
    /// Whether starting the broker again may mend it.
    pub fn wants_restart(&self) -> bool {
        match self {
            Self::NoStreams | Self::Shut(_) => true,
            Self::Disorder(_) => false,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStreams => f.write_str("JetStream does not answer"),
            Self::Shut(stream) => write!(f, "the stream {stream} takes nothing"),
            Self::Disorder(why) => write!(f, "the streams are not in order: {why}"),
        }
    }
}

/// What the publishes of this process have met.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// What was under way when the connection came may be lost, and says nothing.
    connected: Option<Instant>,
    streams: BTreeMap<String, Stream>,
    trouble: Option<Trouble>,
    /// It has not answered once. Many questions come at once with a connection: it has to answer nothing twice.
    is_suspect: bool,
}

#[derive(Debug, Default)]
struct Stream {
    confirmed: Option<Instant>,
    /// What was not confirmed, if nothing has been since.
    silent: Option<Silence>,
}

#[derive(Debug, Clone, Copy)]
struct Silence {
    /// When the first such publish began.
    began: Instant,
    /// When it failed.
    failed: Instant,
    /// Another one that began after that has failed as well: one alone may be a confirmation that was lost.
    again: bool,
}

impl Health {
    /// The connection is there, for the first time or again.
    pub(crate) fn connected(&mut self, now: Instant) {
        *self = Self { connected: Some(now), ..Self::default() };
    }

    /// A stream has confirmed.
    pub(crate) fn confirmed(&mut self, stream: &str, now: Instant) {
        if let Some(known) = self.streams.get_mut(stream) {
            *known = Stream { confirmed: Some(now), silent: None };
        } else {
            self.streams.insert(stream.to_owned(), Stream { confirmed: Some(now), silent: None });
        }
    }

    /// A publish that began at this time was not confirmed in time, as is clear now.
    pub(crate) fn silent(&mut self, stream: &str, began: Instant, now: Instant) {
        let known = self.streams.entry(stream.to_owned()).or_default();
        if self.connected > Some(began) || known.confirmed > Some(began) {
            return;
        }
        match &mut known.silent {
            Some(silence) => {
                silence.again |= began >= silence.failed;
                silence.began = silence.began.min(began);
            }
            none => *none = Some(Silence { began, failed: now, again: false }),
        }
    }

    /// The streams were looked after, with this result.
    pub(crate) fn looked_after(&mut self, trouble: Option<Trouble>) {
        let is_silent = trouble == Some(Trouble::NoStreams);
        self.trouble = if is_silent && !self.is_suspect { None } else { trouble };
        self.is_suspect = is_silent;
    }

    /// A stream that has not confirmed what was published last. It may be shut: for whoever knows that its disk was
    /// full, that is enough.
    pub(crate) fn suspect(&self) -> Option<Trouble> {
        let silent = self.streams.iter().find(|(_, stream)| stream.silent.is_some());
        silent.map(|(name, _)| Trouble::Shut(name.clone()))
    }

    /// What is wrong. A stream is shut when it was silent for all of `patience`, and not just once.
    pub(crate) fn trouble(&self, now: Instant, patience: Duration) -> Option<Trouble> {
        let is_shut = |stream: &Stream| {
            stream.silent.is_some_and(|silence| silence.again && now.duration_since(silence.began) >= patience)
        };
        let shut = || self.streams.iter().find(|(_, stream)| is_shut(stream)).map(|(name, _)| name.clone());
        self.trouble.clone().or_else(|| shut().map(Trouble::Shut))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    enum Met {
        Connection,
        Confirmed,
        /// Not confirmed, with the second in which it began.
        Silent(u64),
    }
    use Met::{Confirmed, Connection, Silent};

    /// What the publishes to one stream met, with the seconds at which they did; patience is ten seconds.
    #[track_caller]
    fn check(met: &[(u64, Met)], looked_at: u64, want: Option<Trouble>) {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut health = Health::default();
        for &(second, what) in met {
            match what {
                Connection => health.connected(at(second)),
                Confirmed => health.confirmed("SCORE", at(second)),
                Silent(began) => health.silent("SCORE", at(began), at(second)),
            }
        }
        assert_eq!(health.trouble(at(looked_at), Duration::from_secs(10)), want);
    }

    fn shut() -> Option<Trouble> {
        Some(Trouble::Shut("SCORE".to_owned()))
    }

    #[test]
    fn silence_for_long_enough() {
        check(&[], 100, None);
        check(&[(0, Connection), (1, Confirmed), (7, Silent(2)), (13, Silent(8))], 11, None);
        check(&[(0, Connection), (1, Confirmed), (7, Silent(2)), (13, Silent(8))], 13, shut());
        check(&[(0, Connection), (7, Silent(2)), (13, Silent(8))], 12, shut());
    }

    #[test]
    fn one_confirmation_that_is_lost_is_no_silence() {
        check(&[(0, Connection), (1, Confirmed), (7, Silent(2))], 1000, None);
        check(&[(0, Connection), (7, Silent(2)), (8, Silent(3)), (9, Silent(4))], 1000, None);
        let mut health = Health::default();
        assert_eq!(health.suspect(), None);
        health.silent("SCORE", Instant::now(), Instant::now());
        assert_eq!(health.suspect(), shut());
    }

    #[test]
    fn a_broker_that_does_not_answer_once_may_be_busy() {
        let mut health = Health::default();
        let look = |health: &Health| health.trouble(Instant::now(), Duration::ZERO);
        health.looked_after(Some(Trouble::NoStreams));
        assert_eq!(look(&health), None);
        health.looked_after(Some(Trouble::NoStreams));
        assert_eq!(look(&health), Some(Trouble::NoStreams));
        health.looked_after(None);
        health.looked_after(Some(Trouble::NoStreams));
        assert_eq!(look(&health), None);
    }

    #[test]
    fn what_was_confirmed_meanwhile_or_since_tells_against_it() {
        check(&[(0, Connection), (3, Confirmed), (7, Silent(2))], 100, None);
        check(&[(0, Connection), (7, Silent(2)), (8, Confirmed)], 100, None);
    }

    #[test]
    fn what_was_under_way_when_the_connection_came_says_nothing() {
        check(&[(0, Connection), (4, Connection), (7, Silent(2))], 100, None);
        check(&[(0, Connection), (7, Silent(2)), (8, Connection)], 100, None);
    }

    #[test]
    fn streams_out_of_order_come_first_and_want_no_restart() {
        let mut health = Health::default();
        let began = Instant::now();
        health.silent("SCORE", began, began);
        health.silent("SCORE", began, began);
        health.looked_after(Some(Trouble::Disorder("odd".to_owned())));
        let trouble = health.trouble(began, Duration::ZERO);
        assert_eq!(trouble, Some(Trouble::Disorder("odd".to_owned())));
        assert!(!trouble.is_some_and(|trouble| trouble.wants_restart()));
        health.looked_after(None);
        assert_eq!(health.trouble(began, Duration::ZERO), shut());
    }
}
