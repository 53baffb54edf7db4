//! Criteria as clients write them, asked of one message.
#![allow(clippy::unwrap_used)]

use imap_codec::CommandCodec;
use imap_codec::decode::Decoder as _;
use imap_types::command::CommandBody;

use super::*;
use crate::imap::readable::Readable;

const TEXT: &str = "Date: Mon, 2 Mar 2026 23:59:59 -0800\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\
                    Received: from one\r\nReceived: from two\r\nTo: group: <C (odd) @ d.example>;\r\n\
                    From: a@b.example\r\n\r\nA Needle in the hay\r\n";

fn read(criteria: &str) -> Result<Criteria, Refusal> {
    let command = format!("a SEARCH {criteria}\r\n");
    let (_, command) = CommandCodec::default().decode(command.as_bytes()).unwrap();
    let CommandBody::Search { criteria, .. } = command.body else { panic!("not SEARCH") };
    Reading { last: (9, 90), texts: 4 }.read(&SearchKey::And(criteria))
}

#[track_caller]
fn check(criteria: &str, want: bool) {
    let row = MessageRow {
        uid: 70,
        flags: flags::SEEN,
        keywords: "Work".into(),
        size: 100,
        // 3 March 2026, one hour after midnight.
        received: 20_515 * DAY + 3_600_000,
        modseq: 9,
    };
    let criteria = read(criteria).unwrap();
    let text = Readable::new(TEXT.as_bytes());
    let now = 20_515 * DAY + 7_200_000;
    let told = |wanted: &Wanted| text.tells(wanted).or_else(|| wanted.in_time(row.received, now));
    assert_eq!(criteria.judge(7, &row, told), Some(want), "{criteria:?}");
    let by_row = criteria.judge(7, &row, |_| None);
    assert!(by_row.is_none_or(|by_row| by_row == want), "{criteria:?}");
}

#[test]
fn of_the_row() {
    for (criteria, want) in [
        ("ALL", true),
        ("NEW", false),
        ("SEEN", true),
        ("UNSEEN", false),
        ("NOT DELETED UNDRAFT", true),
        ("KEYWORD work", true),
        ("UNKEYWORD work", false),
        ("LARGER 99 SMALLER 101", true),
        ("LARGER 100", false),
        ("7:8", true),
        ("1:6,8:*", false),
        ("UID 60:*", true),
        ("UID *", false),
        ("OR FLAGGED (SEEN 7)", true),
        ("BEFORE 3-Mar-2026", false),
        ("ON 3-Mar-2026", true),
        ("SINCE 3-Mar-2026 BEFORE 4-Mar-2026", true),
        ("MODSEQ 9", true),
        ("MODSEQ \"/flags/\\\\draft\" all 10", false),
        ("OLDER 3600", true),
        ("OLDER 3601", false),
        ("YOUNGER 3600", true),
        ("YOUNGER 3599", false),
    ] {
        check(criteria, want);
    }
}

#[test]
fn what_the_row_tells_needs_no_text() {
    let row = MessageRow { uid: 70, flags: 0, keywords: "".into(), size: 100, received: 0, modseq: 9 };
    for (criteria, want) in [
        ("SEEN BODY x", Some(false)),
        ("BODY x SEEN", Some(false)),
        ("UNSEEN BODY x", None),
        ("OR BODY x UNSEEN", Some(true)),
        ("OR SEEN TEXT x", None),
        ("NOT (SEEN BODY x)", Some(true)),
    ] {
        assert_eq!(read(criteria).unwrap().judge(7, &row, |_| None), want, "{criteria}");
    }
}

#[test]
fn of_the_text() {
    for (criteria, want) in [
        ("SENTON 2-Mar-2026", true),
        ("SENTSINCE 3-Mar-2026", false),
        ("NOT SENTSINCE 3-Mar-2026", true),
        ("SENTBEFORE 3-Mar-2026", true),
        ("SUBJECT {8+}\r\nGR\u{dc}SSE!", false),
        ("SUBJECT {7+}\r\ngR\u{fc}\u{df}E", true),
        ("HEADER received \"from TWO\"", true),
        ("HEADER Date \"\"", true),
        ("HEADER x-none \"\"", false),
        ("BODY needle", true),
        ("BODY subject", false),
        ("TEXT \"subject: gr\"", true),
        ("FROM B.EXAMPLE NOT TEXT nothing", true),
        ("TO c@d.example", true),
        ("TO odd TO group", true),
        ("TO nobody", false),
        ("CC \"\"", false),
    ] {
        check(criteria, want);
    }
}

#[test]
fn what_is_too_much_is_refused() {
    assert!(read("BODY a BODY b BODY c BODY d BODY e").unwrap_err().starts_with("[LIMIT]"));
    let deep = (0..DEPTH).fold(SearchKey::All, |key, _| SearchKey::Not(Box::new(key)));
    assert!(Reading { last: (9, 90), texts: 4 }.read(&deep).unwrap_err().starts_with("[LIMIT]"));
}
