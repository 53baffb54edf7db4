//! IMAP4rev2 (RFC 9051) and UTF8=ACCEPT (RFC 6855), for clients that have enabled them.

use super::*;

/// What is heard of all that is said after the login and an ENABLE.
#[track_caller]
fn enabled(what: &str, said: &str, want: &str) {
    for piece in [usize::MAX, 3] {
        let (mut session, mut world) = (session(), World::new());
        let before = format!("1 LOGIN alice secret\r\n2 ENABLE {what}\r\n");
        let heard = run(&mut session, &mut world, before.as_bytes(), usize::MAX);
        assert!(heard.ends_with(&format!("* ENABLED {what}\r\n2 OK ENABLE done\r\n")), "{heard}");
        assert_eq!(run(&mut session, &mut world, said.as_bytes(), piece), want);
    }
}

const SELECTED: &str = "* 2 EXISTS\r\n* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n\
                        * OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] flags that are \
                        kept\r\n* LIST () \"/\" \"INBOX\"\r\n* OK [UIDVALIDITY 7] as long as UIDs hold\r\n\
                        * OK [UIDNEXT 16] the next UID\r\n* OK [HIGHESTMODSEQ 1] of all changes so far\r\n";

#[test]
fn selecting_tells_the_name_and_nothing_of_recent() {
    enabled("IMAP4rev2", "a SELECT inbox\r\n", &format!("{SELECTED}a OK [READ-WRITE] SELECT done\r\n"));
}

#[test]
fn searching_is_answered_with_esearch() {
    let said = "a SELECT INBOX\r\nb SEARCH ALL\r\nc UID SEARCH SUBJECT two\r\nd SEARCH BODY nothing\r\n\
                e SEARCH CHARSET UTF-8 RETURN (COUNT) ALL\r\nf SEARCH RETURN (COUNT) CHARSET UTF-8 ALL\r\n\
                g SORT (DATE) UTF-8 ALL\r\n";
    let want = "b OK SEARCH done\r\n* ESEARCH (TAG \"c\") UID ALL 15\r\nc OK SEARCH done\r\n* ESEARCH (TAG \"d\")\r\n\
                d OK SEARCH done\r\ne BAD the command cannot be read\r\n* ESEARCH (TAG \"f\") COUNT 2\r\n\
                f OK SEARCH done\r\n* SORT 1 2\r\ng OK SORT done\r\n";
    enabled(
        "IMAP4rev2",
        said,
        &format!("{SELECTED}a OK [READ-WRITE] SELECT done\r\n* ESEARCH (TAG \"b\") ALL 1:2\r\n{want}"),
    );
}

#[test]
fn what_is_told_unasked_has_its_uid() {
    let (mut session, mut world) = (session(), World::new());
    run(&mut session, &mut world, b"1 LOGIN alice secret\r\n2 ENABLE IMAP4rev2\r\n3 SELECT INBOX\r\n", usize::MAX);
    world.rows[0].flags = flags::SEEN;
    let heard = run(&mut session, &mut world, b"a NOOP\r\n", usize::MAX);
    assert_eq!(heard, "* 1 FETCH (UID 5 FLAGS (\\Seen))\r\na OK NOOP done\r\n");
}

#[test]
fn names_are_in_utf8() {
    for what in ["IMAP4rev2", "UTF8=ACCEPT"] {
        enabled(
            what,
            "a CREATE \"Entw\u{fc}rfe\"\r\nb GETQUOTAROOT \"Entw\u{fc}rfe\"\r\nc CREATE {3}\r\n\u{fc}x\r\n\
             d CREATE \"\u{fc}\" (USE (\\Archive))\r\n",
            "a OK CREATE done\r\n* QUOTAROOT \"Entw\u{fc}rfe\" \"\"\r\n* QUOTA \"\" (STORAGE 5 1024 MESSAGE 2 100)\r\n\
             b OK GETQUOTAROOT done\r\n+ go on\r\nc OK CREATE done\r\nd OK CREATE done\r\n",
        );
        // What was modified UTF-7 before is a name as any other.
        enabled(
            what,
            "a GETQUOTAROOT \"&AP\"\r\n",
            "* QUOTAROOT \"&AP\" \"\"\r\n* QUOTA \"\" (STORAGE 5 1024 MESSAGE 2 100)\r\na OK GETQUOTAROOT done\r\n",
        );
        enabled(what, "a CREATE {1+}\r\n\u{1}\r\n", "a NO [CANNOT] no mailbox can have this name\r\n");
        enabled(
            what,
            "a APPEND \"\u{fc}\" UTF8 (~{3+}\r\nabc)\r\nb APPEND \"\u{fc}\" {3+}\r\nabc\r\n",
            "a OK [APPENDUID 7 3] APPEND done\r\nb OK [APPENDUID 7 3] APPEND done\r\n",
        );
    }
    // Who has not asked for it hears modified UTF-7.
    enabled(
        "CONDSTORE",
        "b GETQUOTAROOT \"&APw-\"\r\n",
        "* QUOTAROOT \"&APw-\" \"\"\r\n* QUOTA \"\" (STORAGE 5 1024 MESSAGE 2 100)\r\nb OK GETQUOTAROOT done\r\n",
    );
}

/// RFC 9051 section 5.1. Where there is such a mailbox, it can be read and renamed.
#[test]
fn a_new_name_is_composed() {
    let refused = "NO [CANNOT] the letters and accents of a new name are to be composed (Unicode NFC)\r\n";
    let apart = "Entwu\u{308}rfe";
    enabled(
        "UTF8=ACCEPT",
        &format!(
            "b CREATE \"{apart}\"\r\nc CREATE \"x/{apart}\" (USE (\\Archive))\r\nd RENAME x \"{apart}\"\r\n\
             e RENAME \"{apart}\" x\r\n"
        ),
        &format!("b {refused}c {refused}d {refused}e OK RENAME done\r\n"),
    );
    check("a CREATE u&Awg-\r\nb CREATE &APw-\r\n", &format!("a {refused}b OK CREATE done\r\n"));
}

#[test]
fn a_renamed_mailbox_is_told_with_its_old_name() {
    enabled(
        "IMAP4rev2",
        "a RENAME \"\u{fc}\" \"x\"\r\nb RENAME INBOX y\r\n",
        "* LIST () \"/\" \"x\" (\"OLDNAME\" (\"\u{fc}\"))\r\na OK RENAME done\r\nb OK RENAME done\r\n",
    );
    enabled("UTF8=ACCEPT", "a RENAME x y\r\n", "a OK RENAME done\r\n");
}

#[test]
fn a_charset_does_not_go_with_utf8() {
    let (mut session, mut world) = (session(), World::new());
    run(&mut session, &mut world, b"1 LOGIN alice secret\r\n2 ENABLE UTF8=ACCEPT\r\n3 SELECT INBOX\r\n", usize::MAX);
    let said = "a SEARCH CHARSET UTF-8 SUBJECT two\r\nb SEARCH SUBJECT \"zw\u{f6}\"\r\nc SEARCH RETURN (COUNT) SUBJECT \
                \"zw\u{f6}\"\r\n";
    let heard = run(&mut session, &mut world, said.as_bytes(), usize::MAX);
    assert_eq!(
        heard,
        "a BAD CHARSET does not go with UTF8=ACCEPT\r\n* SEARCH\r\nb OK SEARCH done\r\n* ESEARCH (TAG \"c\") COUNT \
         0\r\nc OK SEARCH done\r\n"
    );
}
