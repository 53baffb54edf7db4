//! What of a message's header sorting and threading look at (RFC 5256).

use super::envelope::addresses_of;
use super::readable::decode_words;
use super::subject;
use crate::mime::several;

/// References of one message that are followed: the last ones, which are next to it.
const REFERENCES: usize = 100;
/// Bytes of a field that is put in order, and of a message id: a line has 998 at most. They are kept for every message.
const MOST: usize = 2000;

/// The facts of a message. Texts are decoded and folded, so that their order is that of `i;unicode-casemap`, or near
/// it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// When it was sent, in milliseconds since 1970; when it was received, if it does not say (section 2.2).
    pub(super) sent: i64,
    /// The base subject.
    pub(super) subject: String,
    /// Whether the subject is that of a reply or a forward.
    pub(super) is_answer: bool,
    /// The first mailboxes, without their hosts.
    pub(super) from: String,
    pub(super) to: String,
    pub(super) cc: String,
    /// The names of the first ones, or their addresses (RFC 5957).
    pub(super) shown_from: String,
    pub(super) shown_to: String,
    /// Its id.
    pub(super) id: Option<String>,
    /// The ids of those before it in its thread, the eldest first.
    pub(super) references: Vec<String>,
}

impl Facts {
    /// The facts in a header.
    pub(super) fn of(header: &[u8], received: i64) -> Self {
        let names = ["date", "subject", "from", "to", "cc", "message-id", "references", "in-reply-to"];
        let [date, subject, from, to, cc, id, references, reply_to] = several(header, names);
        let text = |value: &Option<Vec<u8>>| folded(value.as_deref().unwrap_or_default());
        let (subject, is_answer) = subject::base(&text(&subject));
        let (from, shown_from) = address(from.as_deref());
        let (to, shown_to) = address(to.as_deref());
        let (cc, _) = address(cc.as_deref());
        let mut references = ids(references.as_deref().unwrap_or_default());
        // Section 3, REFERENCES step 1: of In-Reply-To the first, where there are no References.
        if references.is_empty() {
            references.extend(ids(reply_to.as_deref().unwrap_or_default()).into_iter().next());
        }
        references.drain(..references.len().saturating_sub(REFERENCES));
        Self {
            sent: date.and_then(|date| sent(&date)).unwrap_or(received),
            subject,
            is_answer,
            from,
            to,
            cc,
            shown_from,
            shown_to,
            id: ids(id.as_deref().unwrap_or_default()).into_iter().next(),
            references,
        }
    }
}

fn sent(date: &[u8]) -> Option<i64> {
    let date = mail_parser::DateTime::parse_rfc822(&String::from_utf8_lossy(date))?;
    date.is_valid().then(|| date.to_timestamp().saturating_mul(1000))
}

fn folded(value: &[u8]) -> String {
    let mut out = String::new();
    decode_words(&mut out, &value[..value.len().min(MOST)]);
    out
}

/// The first mailbox without its host, and what is shown of it.
fn address(value: Option<&[u8]>) -> (String, String) {
    let Some(first) = value.and_then(|value| addresses_of(value).next()) else { return Default::default() };
    let part = |part: Option<Vec<u8>>| folded(&part.unwrap_or_default());
    let (mailbox, host, name) = (part(first.mailbox), part(first.host), part(first.name));
    let shown = match (name.is_empty(), host.is_empty()) {
        (false, _) => name,
        (true, true) => mailbox.clone(),
        (true, false) => format!("{mailbox}@{host}"),
    };
    (mailbox, shown)
}

/// The message ids in a field. Quotes that are not needed make no other id (section 3, REFERENCES step 1).
fn ids(value: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(value);
    let mut ids = Vec::new();
    let mut rest = &*text;
    while let Some((_, behind)) = rest.split_once('<') {
        let Some((id, behind)) = behind.split_once('>') else { break };
        let id: String = id.chars().filter(|letter| !matches!(letter, '"' | '\\' | ' ' | '\t')).collect();
        if !id.is_empty() && id.len() <= MOST {
            ids.push(id);
        }
        rest = behind;
    }
    ids
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn of_a_header() {
        let header = "Date: Mon, 2 Mar 2026 01:00:00 +0100\r\nSubject: Re: =?utf-8?q?=C3=9Cber?=\r\n alles\r\n\
                      From: =?utf-8?q?J=C3=B6rg?= X <Joerg@b.example>\r\nTo: A@b, c@d\r\nCc: group: E@f;\r\n\
                      Message-ID: <\"m\"@x>\r\nReferences: <1@x> junk\r\n <2@x>\r\nIn-Reply-To: <3@x>\r\n\r\n";
        let text = |text: &str| text.to_owned();
        let want = Facts {
            sent: 1_772_409_600_000,
            subject: text("über alles"),
            is_answer: true,
            from: text("joerg"),
            to: text("a"),
            cc: text("group"),
            shown_from: text("jörg x"),
            shown_to: text("a@b"),
            id: Some(text("m@x")),
            references: vec![text("1@x"), text("2@x")],
        };
        assert_eq!(Facts::of(header.as_bytes(), 7), want);
    }

    #[test]
    fn of_a_poor_header() {
        let facts = Facts::of(b"In-Reply-To: Your message <3@x> <4@x>\r\nDate: tomorrow\r\n\r\n", 7);
        assert_eq!(facts, Facts { sent: 7, references: vec!["3@x".to_owned()], ..Facts::default() });
        assert_eq!(Facts::of(b"", 7), Facts { sent: 7, ..Facts::default() });
        let many: String = (0..1000).map(|at| format!(" <{at}@x>")).collect();
        let facts = Facts::of(format!("References:{many}\r\n\r\n").as_bytes(), 7);
        assert_eq!((facts.references.len(), facts.references.last()), (REFERENCES, Some(&"999@x".to_owned())));
        let long = "x".repeat(MOST + 1);
        let header = format!(
            "From: {long}\r\nCc: \"{long}\" <{long}@b>\r\nMessage-ID: <{long}>\r\nReferences: <{long}> <1@x>\r\n\r\n"
        );
        let facts = Facts::of(header.as_bytes(), 7);
        assert_eq!((facts.from.len(), facts.cc.len(), facts.id, facts.references.len()), (MOST, MOST, None, 1));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(header in "(Date|Subject|From|To|References|Message-ID|: \
    |<|>|@|\"|=\\?utf-8\\?q\\?|\\?=|re:|\r\n|[a-c0-9]|\u{e4}){0,30}") {
            Facts::of(header.as_bytes(), 0);
        }
    }
}
