//! Sets of message numbers (RFC 3501 section 9, `sequence-set`), read once and asked often.

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

    /// Whether a number is in the set.
    pub(super) fn contains(&self, number: u32) -> bool {
        let at = self.0.partition_point(|(_, end)| *end < number);
        self.0.get(at).is_some_and(|(begin, _)| *begin <= number)
    }
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

    proptest! {
        #[test]
        fn contains_what_was_named(ranges in proptest::collection::vec((1u32..60, 1u32..60), 1..9), number in 1u32..70) {
            let named = |(one, other): &(u32, u32)| (*one.min(other)..=*one.max(other)).contains(&number);
            let text = ranges.iter().map(|(one, other)| format!("{one}:{other}")).collect::<Vec<_>>().join(",");
            let set = Set::new(&text.as_str().try_into().unwrap(), 60);
            prop_assert_eq!(set.contains(number), ranges.iter().any(named));
        }
    }
}
