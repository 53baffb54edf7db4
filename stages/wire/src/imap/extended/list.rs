//! LIST with options (RFC 5258, RFC 5819, RFC 6154), and CREATE with a special use (RFC 6154).

use imap_types::status::StatusDataItemName;

use super::reader::{Reader, is_name, is_pattern};

/// What LIST is to show, and what it says of that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::imap) struct Listed {
    pub(in crate::imap) reference: Vec<u8>,
    pub(in crate::imap) patterns: Vec<Vec<u8>>,
    /// Only what is subscribed to, or also what has such mailboxes below it.
    pub(in crate::imap) subscribed: bool,
    pub(in crate::imap) recursive: bool,
    /// Only mailboxes with a special use.
    pub(in crate::imap) special_use: bool,
    /// Whether it says what is subscribed to.
    pub(in crate::imap) tell_subscribed: bool,
    /// What STATUS says of each.
    pub(in crate::imap) status: Vec<StatusDataItemName>,
    /// Whether it is more than RFC 3501 knows.
    pub(in crate::imap) is_extended: bool,
}

/// Reads a LIST; gives its tag with it.
pub(in crate::imap) fn list(message: &[u8]) -> Option<(String, Listed)> {
    let (tag, mut reader) = command(message, b"LIST ")?;
    let mut listed = Listed::default();
    if reader.0.starts_with(b"(") {
        listed.is_extended = true;
        let options = reader.list(|reader| reader.word(is_option).map(<[u8]>::to_ascii_uppercase))?;
        for option in options {
            match option.as_slice() {
                b"SUBSCRIBED" => (listed.subscribed, listed.tell_subscribed) = (true, true),
                b"RECURSIVEMATCH" => listed.recursive = true,
                b"SPECIAL-USE" => listed.special_use = true,
                // There are no mailboxes elsewhere.
                b"REMOTE" => {}
                _ => return None,
            }
        }
        reader.takes(b" ").then_some(())?;
        // RFC 5258 section 3.5: alone it says nothing.
        (!listed.recursive || listed.subscribed).then_some(())?;
    }
    listed.reference = reader.string(is_name)?;
    reader.takes(b" ").then_some(())?;
    listed.patterns = if reader.0.starts_with(b"(") {
        listed.is_extended = true;
        reader.list(|reader| reader.string(is_pattern))?
    } else {
        vec![reader.string(is_pattern)?]
    };
    if reader.takes(b" RETURN ") {
        listed.is_extended = true;
        reader.list(|reader| read_return(reader, &mut listed))?;
    }
    (reader.0 == b"\r\n").then_some((tag, listed))
}

fn read_return(reader: &mut Reader<'_>, listed: &mut Listed) -> Option<()> {
    match reader.word(is_option)?.to_ascii_uppercase().as_slice() {
        b"SUBSCRIBED" => listed.tell_subscribed = true,
        // They are always told.
        b"CHILDREN" | b"SPECIAL-USE" => {}
        b"STATUS" => {
            reader.takes(b" ").then_some(())?;
            listed.status = once(reader.list(status_item)?);
        }
        _ => return None,
    }
    Some(())
}

/// Each item once: every mailbox would be told of as often as one is named.
pub(in crate::imap) fn once(items: Vec<StatusDataItemName>) -> Vec<StatusDataItemName> {
    let mut kept = Vec::new();
    for item in items {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

fn status_item(reader: &mut Reader<'_>) -> Option<StatusDataItemName> {
    Some(match reader.word(is_option)?.to_ascii_uppercase().as_slice() {
        b"MESSAGES" => StatusDataItemName::Messages,
        b"RECENT" => StatusDataItemName::Recent,
        b"UIDNEXT" => StatusDataItemName::UidNext,
        b"UIDVALIDITY" => StatusDataItemName::UidValidity,
        b"UNSEEN" => StatusDataItemName::Unseen,
        b"DELETED" => StatusDataItemName::Deleted,
        b"DELETED-STORAGE" => StatusDataItemName::DeletedStorage,
        b"SIZE" => StatusDataItemName::Size,
        b"HIGHESTMODSEQ" => StatusDataItemName::HighestModSeq,
        _ => return None,
    })
}

/// Reads a CREATE with a special use: tag, name, and the one use.
pub(in crate::imap) fn create(message: &[u8]) -> Option<(String, Vec<u8>, String)> {
    let (tag, mut reader) = command(message, b"CREATE ")?;
    let name = reader.string(is_name)?;
    reader.takes(b" (USE ").then_some(())?;
    let uses = reader.list(|reader| {
        reader.takes(b"\\").then_some(())?;
        reader.word(|byte| byte.is_ascii_alphabetic()).map(<[u8]>::to_ascii_lowercase)
    })?;
    let special_use = match uses.first()?.as_slice() {
        b"archive" => "\\Archive",
        b"drafts" => "\\Drafts",
        b"junk" => "\\Junk",
        b"sent" => "\\Sent",
        b"trash" => "\\Trash",
        // What cannot be kept is said by a name that the store refuses (RFC 6154 section 3).
        _ => "\\",
    };
    let special_use = if uses.len() > 1 { "\\" } else { special_use };
    (reader.0 == b")\r\n").then(|| (tag, name, special_use.to_owned()))
}

fn command<'a>(message: &'a [u8], name: &[u8]) -> Option<(String, Reader<'a>)> {
    let mut reader = Reader(message);
    let tag = reader.word(|byte| is_name(byte) && byte != b'+')?;
    let tag = String::from_utf8_lossy(tag).into_owned();
    (reader.takes(b" ") && reader.takes(name)).then_some((tag, reader))
}

fn is_option(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(said: &str, want: Option<(&str, &[&str])>) {
        let read = list(format!("a LIST {said}\r\n").as_bytes()).map(|(_, listed)| listed);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let read = read.map(|listed| (text(&listed.reference), listed.patterns.iter().map(|one| text(one)).collect()));
        let want = want.map(|(reference, patterns)| {
            (reference.to_owned(), patterns.iter().map(|&one| one.to_owned()).collect::<Vec<_>>())
        });
        assert_eq!(read, want, "{said}");
    }

    #[test]
    fn lists() {
        check("\"\" *", Some(("", &["*"])));
        check("\"\" {3}\r\na b", Some(("", &["a b"])));
        check(
            "(SUBSCRIBED RECURSIVEMATCH) \"\" (\"%\" x/*) RETURN (CHILDREN STATUS (SIZE))",
            Some(("", &["%", "x/*"])),
        );
        check("() x ()", Some(("x", &[])));
        check("(RECURSIVEMATCH) \"\" *", None);
        check("(WHATEVER) \"\" *", None);
        check("\"\" * RETURN (WHATEVER)", None);
        check("\"\" \"\\x\"", None);
        check("\"\"", None);
    }

    #[test]
    fn creating() {
        let read = |said: &str| create(format!("a CREATE {said}\r\n").as_bytes()).map(|(_, name, used)| (name, used));
        assert_eq!(read("Old (USE (\\archive))"), Some((b"Old".to_vec(), "\\Archive".to_owned())));
        assert_eq!(read("Old (USE (\\All))"), Some((b"Old".to_vec(), "\\".to_owned())));
        assert_eq!(read("Old (USE ())"), None);
        assert_eq!(read("Old"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(said: Vec<u8>) {
            let _ = (list(&said), create(&said));
            let _ = list(&[b"a LIST ", &said[..]].concat());
            let _ = create(&[b"a CREATE ", &said[..]].concat());
        }
    }
}
