//! A text that is looked for, whatever the case of its letters.
//!
//! Both sides are folded: every letter by itself to its lower case, so that a part of a word is found as well as the
//! whole of it. Accents count: `u` does not find `ü`.

use memchr::memmem::Finder;

/// A text that is looked for.
#[derive(Debug)]
pub struct Needle {
    folded: String,
    finder: Box<Finder<'static>>,
}

impl Needle {
    /// A text as somebody wrote it.
    pub fn new(text: &str) -> Self {
        let mut folded = String::new();
        fold_into(&mut folded, text);
        let finder = Box::new(Finder::new(folded.as_bytes()).into_owned());
        Self { folded, finder }
    }

    /// The text, folded.
    pub fn folded(&self) -> &str {
        &self.folded
    }

    /// Whether it is in a text that is folded already.
    pub fn is_in(&self, folded: &str) -> bool {
        self.finder.find(folded.as_bytes()).is_some()
    }
}

impl PartialEq for Needle {
    fn eq(&self, other: &Self) -> bool {
        self.folded == other.folded
    }
}

impl Eq for Needle {}

/// Appends a text in lower case.
pub(super) fn fold_into(out: &mut String, text: &str) {
    if text.is_ascii() {
        let begin = out.len();
        out.push_str(text);
        return out[begin..].make_ascii_lowercase();
    }
    out.reserve(text.len());
    for letter in text.chars() {
        match letter {
            'a'..='z' => out.push(letter),
            // The sigma at the end of a word: what a needle ends with may stand in the middle.
            'ς' | 'Σ' => out.push('σ'),
            letter => out.extend(letter.to_lowercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(needle: &str, text: &str, want: bool) {
        let mut folded = String::new();
        fold_into(&mut folded, text);
        assert_eq!(Needle::new(needle).is_in(&folded), want, "{needle} in {text}");
    }

    #[test]
    fn case_does_not_count() {
        check("NEEDLE", "a needle", true);
        check("grÜß", "GRÜßE", true);
        check("ПРИВЕТ", "привет", true);
        check("ΟΔΟΣ", "οδοσημα", true);
        check("οδος", "ΟΔΟΣ", true);
        check("uber", "über", false);
        check("日本", "日本語", true);
        check("", "", true);
        check("x", "", false);
    }
}
