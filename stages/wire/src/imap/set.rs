//! Sets of message numbers (RFC 3501 section 9, `sequence-set`), read once and asked often.

use std::fmt::Write as _;

use imap_types::sequence::{SeqOrUid, Sequence, SequenceSet};

/// Numbers as ranges, in order and apart; nothing is expanded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Set(Vec<(u32, u32)>);

impl Set {
    /// The set that a client means when the highest number is `last`, which `*` stands for.
    pub(super) fn new(set: &SequenceSet, last: u32) -> Self {
        let value = |end: &SeqOrUid| match end {
            SeqOrUid::Value(value) => value.get(),
            SeqOrUid::Asterisk => last,
        };
        let range = |sequence: &Sequence| match sequence {
            Sequence::Single(single) => (value(single), value(single)),
            Sequence::Range(one, other) => {
                let (one, other) = (value(one), value(other));
                (one.min(other), one.max(other))
            }
        };
        let mut ranges: Vec<(u32, u32)> = set.0.as_ref().iter().map(range).collect();
        ranges.sort_unstable();
        ranges.dedup_by(|next, before| {
            let joins = next.0 <= before.1.saturating_add(1);
            if joins {
                before.1 = before.1.max(next.1);
            }
            joins
        });
        Self(ranges)
    }

    /// The ranges, ends included.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u32, u32)> {
        self.0.iter().copied()
    }

    /// The numbers from 1 to `last`.
    pub(super) fn up_to(last: u32) -> Self {
        Self(if last == 0 { Vec::new() } else { vec![(1, last)] })
    }

    /// As text, what is in the set, below `end`, and not among these numbers, which come in order.
    pub(super) fn without(&self, numbers: impl Iterator<Item = u32>, end: u32) -> String {
        let (mut text, mut next) = (String::new(), 1);
        for number in numbers.chain([end]) {
            let first = self.0.partition_point(|(_, end)| *end < next);
            for (begin, end) in self.0[first..].iter().take_while(|(begin, _)| *begin < number && next < number) {
                let comma = if text.is_empty() { "" } else { "," };
                let (begin, end) = (next.max(*begin), (number - 1).min(*end));
                let _ =
                    if begin == end { write!(text, "{comma}{begin}") } else { write!(text, "{comma}{begin}:{end}") };
            }
            next = number.saturating_add(1);
        }
        text
    }

    /// Whether a number is in the set.
    pub(super) fn contains(&self, number: u32) -> bool {
        let at = self.0.partition_point(|(_, end)| *end < number);
        self.0.get(at).is_some_and(|(begin, _)| *begin <= number)
    }
}

/// Numbers as a set, those that follow each other as ranges; they come in the order in which they are to be told.
pub(super) fn compress(numbers: &[u32]) -> String {
    let mut set = String::new();
    let mut rest = numbers;
    while let Some(first) = rest.first() {
        let run = rest.windows(2).take_while(|pair| pair[0].checked_add(1) == Some(pair[1])).count();
        let comma = if set.is_empty() { "" } else { "," };
        let _ = match run {
            0 => write!(set, "{comma}{first}"),
            _ => write!(set, "{comma}{first}:{}", rest[run]),
        };
        rest = &rest[run + 1..];
    }
    set
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(set: &str, last: u32, want: &[(u32, u32)]) {
        assert_eq!(Set::new(&set.try_into().unwrap(), last).0, want);
    }

    #[test]
    fn ranges_are_joined() {
        check("5", 9, &[(5, 5)]);
        check("7:5,1,2,4:6", 9, &[(1, 2), (4, 7)]);
        check("*", 9, &[(9, 9)]);
        check("12:*", 9, &[(9, 12)]);
        check("1:*,4", 9, &[(1, 9)]);
        check("4294967295,1", 9, &[(1, 1), (4_294_967_295, 4_294_967_295)]);
    }

    #[test]
    fn numbers_are_compressed() {
        for (numbers, want) in [
            (&[][..], ""),
            (&[7], "7"),
            (&[1, 2, 3, 5, 7, 8], "1:3,5,7:8"),
            (&[9, 8, 3, 4, u32::MAX], "9,8,3:4,4294967295"),
        ] {
            assert_eq!(compress(numbers), want);
        }
    }

    #[test]
    fn what_is_left_of_a_set() {
        let left =
            |set: &str, there: &[u32], end| Set::new(&set.try_into().unwrap(), 9).without(there.iter().copied(), end);
        assert_eq!(left("1:9", &[2, 3, 5], 8), "1,4,6:7");
        assert_eq!(left("2:3,6", &[2], 20), "3,6");
        assert_eq!(left("1:4294967295", &[1, 2], 3), "");
        assert_eq!(left("1:3", &[], 1), "");
    }

    proptest! {
        #[test]
        fn contains_what_was_named(
            ranges in proptest::collection::vec((1u32..60, 1u32..60), 1..9),
            number in 1u32..70,
        ) {
            let named = |(one, other): &(u32, u32)| (*one.min(other)..=*one.max(other)).contains(&number);
            let text = ranges.iter().map(|(one, other)| format!("{one}:{other}")).collect::<Vec<_>>().join(",");
            let set = Set::new(&text.as_str().try_into().unwrap(), 60);
            prop_assert_eq!(set.contains(number), ranges.iter().any(named));
        }
    }
}
