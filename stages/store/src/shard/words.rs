//! Lists of keywords, each in memory once: ten thousand messages of a mailbox may have the same.

use std::collections::HashSet;
use std::sync::Arc;

/// Those that have been met.
#[derive(Debug, Default)]
pub(crate) struct Words(HashSet<Arc<str>>);

impl Words {
    /// The list that was met first with these words. Nothing is set aside for the messages that have none.
    pub(crate) fn share(&mut self, words: &str) -> Arc<str> {
        if words.is_empty() {
            return Arc::default();
        }
        if let Some(known) = self.0.get(words) {
            return Arc::clone(known);
        }
        let new: Arc<str> = words.into();
        self.0.insert(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_lie_in_memory_once() {
        let mut words = Words::default();
        let [one, other, third, none] = ["Work", "Work", "Home", ""].map(|list| words.share(list));
        assert!(Arc::ptr_eq(&one, &other) && !Arc::ptr_eq(&one, &third));
        assert_eq!([&*one, &*third, &*none], ["Work", "Home", ""]);
    }
}
