//! The base subject (RFC 5256 section 2.1): a subject without what replies, forwards and lists put around it. Pure.

/// Bytes of a subject that are looked at: a line has 998 at most.
const MOST: usize = 2000;

/// The base of a subject that is decoded and folded, and whether it is that of a reply or a forward.
pub(super) fn base(subject: &str) -> (String, bool) {
    // Step 1: white space becomes one space.
    let subject = subject[..subject.floor_char_boundary(MOST)].split([' ', '\t']).filter(|word| !word.is_empty());
    let whole = subject.collect::<Vec<_>>().join(" ");
    let (mut text, mut is_answer) = (whole.as_str(), false);
    loop {
        // Step 2: trailers.
        text = text.trim_end();
        while let Some(rest) = text.strip_suffix("(fwd)") {
            (text, is_answer) = (rest.trim_end(), true);
        }
        // Steps 3 to 5: leaders, and what stands in brackets before more than nothing.
        loop {
            text = text.trim_start();
            if let Some(rest) = leader(text) {
                (text, is_answer) = (rest, true);
            } else if let Some(rest) = blob(text).filter(|rest| !rest.is_empty()) {
                text = rest;
            } else {
                break;
            }
        }
        // Step 6: a forward in brackets.
        match text.strip_prefix("[fwd:").and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => (text, is_answer) = (inner, true),
            None => return (text.to_owned(), is_answer),
        }
    }
}

/// What is behind `*subj-blob subj-refwd`.
fn leader(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(behind) = blob(rest) {
        rest = behind;
    }
    let rest = ["re", "fwd", "fw"].into_iter().find_map(|word| rest.strip_prefix(word))?.trim_start();
    blob(rest).unwrap_or(rest).strip_prefix(':')
}

/// What is behind `subj-blob`: brackets without brackets in them.
fn blob(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('[')?;
    let end = inner.find(['[', ']'])?;
    inner[end..].strip_prefix(']').map(str::trim_start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(subject: &str, want: &str, is_answer: bool) {
        assert_eq!(base(subject), (want.to_owned(), is_answer), "{subject}");
    }

    #[test]
    fn what_replies_and_forwards_add_is_taken_away() {
        check("hello", "hello", false);
        check("  hello \t world  ", "hello world", false);
        check("re: hello", "hello", true);
        check("re:re : fw: fwd:hello", "hello", true);
        check("[list] hello", "hello", false);
        check("[list] re: [other] hello", "hello", true);
        check("re[2]: hello", "hello", true);
        check("re [2] : hello", "hello", true);
        check("[list]", "[list]", false);
        check("[one] [two]", "[two]", false);
        check("hello (fwd)", "hello", true);
        check("hello (fwd)  (fwd) ", "hello", true);
        check("[fwd: hello]", "hello", true);
        check("re: [fwd: [list] re: hello (fwd)]", "hello", true);
        check("[fwd: hello", "[fwd: hello", false);
        check("regarding: hello", "regarding: hello", false);
        check("re hello", "re hello", false);
        check("re:", "", true);
        check("", "", false);
        check("[a[b] hello", "[a[b] hello", false);
    }

    proptest! {
        #[test]
        fn a_base_is_its_own_base(subject in "(re|fwd|:|\\[|\\]|\\(fwd\\)|\\[fwd:| |[a-c]|\u{e4}){0,12}") {
            let (once, _) = base(&subject);
            prop_assert_eq!(base(&once), (once.clone(), false));
        }
    }
}
