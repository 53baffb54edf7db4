//! What may be in a text, in a few hundred bytes: a filter with a bit for every three bytes that follow each other in
//! it. Pure.
//!
//! A needle of which one such bit is missing is not in the text. One that has all of them may be, or not: a filter
//! never hides what is there. A mail of 4 KB has one of 256 to 1,024 bytes, made in some 10 us; a third of its bits are
//! set at most, so it lets pass one needle of five letters in thirty, and one of eight in seven hundred, whose letters
//! have nothing to do with it.

/// Bits of the largest filter, a power of two: 32 KiB, for texts of some hundred thousand bytes.
const MOST: usize = 1 << 18;
/// Bits of the smallest.
const LEAST: usize = 1 << 8;
/// A filter is folded in half as long as no more than one bit of so many is set afterwards.
const SPARSE: usize = 3;

/// The filter of a text.
pub(crate) fn filter(text: &[u8]) -> Vec<u8> {
    let mut bits = vec![0_u64; MOST / 64];
    for three in text.windows(3) {
        let at = bit(three) % MOST;
        bits[at / 64] |= 1 << (at % 64);
    }
    while bits.len() > LEAST / 64 {
        let (low, high) = bits.split_at(bits.len() / 2);
        let folded: Vec<u64> = low.iter().zip(high).map(|(low, high)| low | high).collect();
        let set: usize = folded.iter().map(|word| word.count_ones() as usize).sum();
        if set * SPARSE > folded.len() * 64 {
            break;
        }
        bits = folded;
    }
    bits.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// Whether a text with this filter may hold this needle. An empty filter knows nothing.
pub(crate) fn may_hold(filter: &[u8], needle: &[u8]) -> bool {
    let bits = filter.len() * 8;
    let is_set = |at: usize| filter[at / 8] >> (at % 8) & 1 != 0;
    bits == 0 || needle.windows(3).all(|three| is_set(bit(three) % bits))
}

/// The number of a bit. Filters of all sizes take the low end of it.
fn bit(three: &[u8]) -> usize {
    let number = three.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    // Multiplied by the golden ratio, the high end depends on all bits.
    (number.wrapping_mul(0x9E37_79B1) >> 14) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, needle: &str, want: bool) {
        assert_eq!(may_hold(&filter(text.as_bytes()), needle.as_bytes()), want, "{needle} in {text}");
    }

    #[test]
    fn needles() {
        check("the quick brown fox", "quick", true);
        check("the quick brown fox", "slow", false);
        check("the quick brown fox", "quack", false);
        check("the quick brown fox", "", true);
        check("the quick brown fox", "zz", true);
        check("", "the", false);
        check("日本語", "本", true);
        check("日本語", "英", false);
        assert!(may_hold(&[], b"anything"));
    }

    #[test]
    fn a_filter_is_as_large_as_its_text_needs() {
        assert_eq!(filter(b"").len(), LEAST / 8);
        let text: Vec<u8> = (0_u32..).flat_map(u32::to_le_bytes).take(1 << 20).collect();
        assert_eq!(filter(&text).len(), MOST / 8);
    }

    proptest! {
        #[test]
        fn what_is_there_is_not_hidden(text: Vec<u8>, from: prop::sample::Index, length in 0_usize..40) {
            let from = from.index(text.len() + 1);
            let needle = &text[from..(from + length).min(text.len())];
            prop_assert!(may_hold(&filter(&text), needle));
        }
    }
}
