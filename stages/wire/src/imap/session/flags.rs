//! The flags and keywords that a client gives, in STORE and APPEND alike.

use crate::imap::question::{Keywords, flags};
use imap_types::flag::Flag;

/// What a list of flags says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// The system flags, as bits.
    pub(super) flags: i64,
    pub(super) keywords: Vec<String>,
    /// Whether \Recent, or what nobody knows, is among them: that is not for a client to set.
    pub(super) has_unknown: bool,
}

pub(super) fn given(list: &[Flag<'_>]) -> Given {
    let mut given = Given::default();
    for flag in list {
        match flag {
            Flag::Seen => given.flags |= flags::SEEN,
            Flag::Answered => given.flags |= flags::ANSWERED,
            Flag::Flagged => given.flags |= flags::FLAGGED,
            Flag::Deleted => given.flags |= flags::DELETED,
            Flag::Draft => given.flags |= flags::DRAFT,
            Flag::Keyword(word) => given.keywords.push(word.as_ref().to_owned()),
            Flag::Extension(_) => given.has_unknown = true,
        }
    }
    given
}

/// What the client hears of keywords beyond these bounds.
pub(super) fn too_much(keywords: &[String], bounds: Keywords) -> Option<String> {
    let Keywords { most, longest, together } = bounds;
    let bytes = keywords.iter().map(|word| word.len() + 1).sum::<usize>().saturating_sub(1);
    let is_too_much = keywords.len() > most || keywords.iter().any(|word| word.len() > longest) || bytes > together;
    is_too_much.then(|| format!("NO [LIMIT] at most {most} keywords of at most {longest} bytes, {together} in all"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_flags() {
        for (list, flags, keywords, has_unknown) in [
            (&[][..], 0, &[][..], false),
            (&["\\Seen", "\\deleted", "$Junk"], flags::SEEN | flags::DELETED, &["$Junk"], false),
            (&["\\Answered", "\\Flagged", "\\Draft"], flags::ANSWERED | flags::FLAGGED | flags::DRAFT, &[], false),
            (&["\\Recent", "x"], 0, &["x"], true),
        ] {
            let list: Vec<Flag<'_>> = list.iter().map(|flag| Flag::try_from(*flag).expect("a flag")).collect();
            let keywords = keywords.iter().map(|&word: &&str| word.to_owned()).collect();
            assert_eq!(given(&list), Given { flags, keywords, has_unknown });
        }
    }

    #[test]
    fn keywords_have_bounds() {
        for (keywords, good) in [
            (&["a", "bcd"][..], true),
            (&["a", "b", "c"], false),
            (&["bcde"], false),
            (&["abc", "de"], true),
            (&["abc", "def"], false),
            (&[], true),
        ] {
            let keywords: Vec<String> = keywords.iter().map(|&word| word.to_owned()).collect();
            assert_eq!(
                too_much(&keywords, Keywords { most: 2, longest: 3, together: 6 }).is_none(),
                good,
                "{keywords:?}"
            );
        }
    }
}
