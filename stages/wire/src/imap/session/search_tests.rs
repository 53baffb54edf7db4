//! Dialogues about searching, in the world of the session's tests.
#![allow(clippy::unwrap_used)]

use super::tests::check;

#[test]
fn what_is_asked_for_is_returned() {
    check(
        "a SEARCH RETURN (MIN MAX COUNT ALL) ALL\r\n",
        "* ESEARCH (TAG \"a\") MIN 1 MAX 2 ALL 1:2 COUNT 2\r\na OK SEARCH done\r\n",
    );
    check("a UID SEARCH RETURN () ALL\r\n", "* ESEARCH (TAG \"a\") UID ALL 5,15\r\na OK SEARCH done\r\n");
    check("a SEARCH RETURN (MIN MAX ALL) DELETED\r\n", "* ESEARCH (TAG \"a\")\r\na OK SEARCH done\r\n");
    check(
        "a SEARCH RETURN (COUNT) CHARSET UTF-8 BODY nothing\r\n",
        "* ESEARCH (TAG \"a\") COUNT 0\r\na OK SEARCH done\r\n",
    );
    check(
        "a UID SEARCH RETURN (MIN) BODY {6}\r\nsecond\r\n",
        "+ go on\r\n* ESEARCH (TAG \"a\") UID MIN 15\r\na OK SEARCH done\r\n",
    );
    check("a SEARCH RETURN (MANY) ALL\r\n", "a BAD the command cannot be read\r\n");
}

#[test]
fn the_highest_modseq_is_told_when_it_is_asked_for() {
    check("a SEARCH MODSEQ 1\r\n", "* SEARCH 1 2 (MODSEQ 1)\r\na OK SEARCH done\r\n");
    check("a SEARCH MODSEQ 2\r\n", "* SEARCH\r\na OK SEARCH done\r\n");
    check("a SEARCH RETURN (MIN) NOT MODSEQ 2\r\n", "* ESEARCH (TAG \"a\") MIN 1 MODSEQ 1\r\na OK SEARCH done\r\n");
}

#[test]
fn what_was_saved_stands_for_its_messages() {
    let fetched = "* 2 FETCH (UID 15)\r\n";
    check(
        "a SEARCH RETURN (SAVE) SUBJECT two\r\nb FETCH $ (UID)\r\nc UID FETCH $ UID\r\nd SEARCH NOT $\r\ne UID SEARCH UID $\r\n",
        &format!(
            "a OK SEARCH done\r\n{fetched}b OK FETCH done\r\n{fetched}c OK FETCH done\r\n* SEARCH 1\r\nd OK SEARCH done\r\n* SEARCH 15\r\ne OK SEARCH done\r\n"
        ),
    );
    check(
        "a SEARCH RETURN (SAVE MIN COUNT) ALL\r\nb SEARCH RETURN (SAVE MAX) $\r\nc SEARCH $\r\n",
        "* ESEARCH (TAG \"a\") MIN 1 COUNT 2\r\na OK SEARCH done\r\n* ESEARCH (TAG \"b\") MAX 2\r\nb OK SEARCH done\r\n* SEARCH 2\r\nc OK SEARCH done\r\n",
    );
    // Nothing was saved, or it failed, or it was expunged.
    check("a FETCH $ UID\r\nb SEARCH $\r\n", "a OK FETCH done\r\n* SEARCH\r\nb OK SEARCH done\r\n");
    let too_many = " TEXT x".repeat(51);
    check(
        &format!("a SEARCH RETURN (SAVE) ALL\r\nb SEARCH RETURN (SAVE){too_many}\r\nc SEARCH $\r\n"),
        "a OK SEARCH done\r\nb NO [LIMIT] too many criteria that ask for texts\r\n* SEARCH\r\nc OK SEARCH done\r\n",
    );
    check(
        "a SEARCH RETURN (SAVE) ALL\r\nb STORE 1 +FLAGS.SILENT (\\Deleted)\r\nc EXPUNGE\r\nd FETCH $ UID\r\n",
        "a OK SEARCH done\r\nb OK STORE done\r\n* 1 EXPUNGE\r\nc OK EXPUNGE done\r\n* 1 FETCH (UID 15)\r\nd OK FETCH done\r\n",
    );
}
