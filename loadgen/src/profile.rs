//! When each mail is due, by an open loop: it is due whether or not the chain keeps up. Pure.

use std::time::Duration;

use clap::ValueEnum;

/// How much busier a burst is.
const BURST: f64 = 10.0;

/// How the load goes over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// The same rate all the time.
    Steady,
    /// Ten times the rate for a while, again and again.
    Burst,
    /// A steady rate of senders whose bytes trickle.
    Slow,
}

/// When mails are due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// Mails a second; none for as fast as the connections allow.
    pub(crate) rate: Option<f64>,
    /// How it changes.
    pub(crate) profile: Profile,
    /// A burst comes once in so long,
    pub(crate) every: Duration,
    /// and at its end lasts so long.
    pub(crate) burst: Duration,
}

impl Schedule {
    /// When mail number `number` is due, after the start; none when it is due as soon as a connection is free.
    pub(crate) fn due(&self, number: u64) -> Option<Duration> {
        let (rate, number) = (self.rate?, number as f64);
        if self.profile != Profile::Burst {
            return Some(Duration::from_secs_f64(number / rate));
        }
        let calm = self.every.saturating_sub(self.burst).as_secs_f64();
        let in_calm = calm * rate;
        let in_all = in_calm + self.burst.as_secs_f64() * rate * BURST;
        let (periods, rest) = ((number / in_all).floor(), number % in_all);
        let within = if rest < in_calm { rest / rate } else { calm + (rest - in_calm) / (rate * BURST) };
        Some(Duration::from_secs_f64(periods * self.every.as_secs_f64() + within))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn by_second(profile: Profile) -> Vec<usize> {
        let second = Duration::from_secs(1);
        let schedule = Schedule { rate: Some(100.0), profile, every: 5 * second, burst: second };
        let mut counts = vec![0; 10];
        let due = (0..).map(|number| schedule.due(number).unwrap());
        due.take_while(|due| due.as_secs() < 10).for_each(|due| counts[due.as_secs() as usize] += 1);
        counts
    }

    #[test]
    fn rates() {
        assert_eq!(by_second(Profile::Steady), [100; 10]);
        assert_eq!(by_second(Profile::Slow), [100; 10]);
        assert_eq!(by_second(Profile::Burst), [100, 100, 100, 100, 1000, 100, 100, 100, 100, 1000]);
    }

    #[test]
    fn without_a_rate_nothing_is_due_at_a_time() {
        let second = Duration::from_secs(1);
        let schedule = Schedule { rate: None, profile: Profile::Steady, every: second, burst: second };
        assert_eq!(schedule.due(5), None);
    }
}
