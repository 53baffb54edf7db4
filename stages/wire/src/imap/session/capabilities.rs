//! What the client is told that it may do.

use std::fmt::Write as _;

use super::ImapSession;
use super::compress::Compress;
use crate::session::Tls;

impl ImapSession {
    pub(super) fn capabilities(&self) -> String {
        let mut list = String::from(
            "IMAP4rev1 IMAP4rev2 LITERAL+ SASL-IR IDLE ENABLE CONDSTORE QRESYNC UNSELECT BINARY UIDPLUS MOVE \
             SPECIAL-USE ESEARCH",
        );
        list.push_str(" SEARCHRES WITHIN SORT SORT=DISPLAY ESORT THREAD=ORDEREDSUBJECT THREAD=REFERENCES");
        list.push_str(" NAMESPACE ID MULTIAPPEND CHILDREN LIST-EXTENDED LIST-STATUS CREATE-SPECIAL-USE STATUS=SIZE");
        list.push_str(" QUOTA QUOTA=RES-STORAGE QUOTA=RES-MESSAGE UTF8=ACCEPT");
        // RFC 7889.
        let _ = write!(list, " APPENDLIMIT={}", self.limits.message);
        if self.logged_in && self.compress == Compress::Off {
            list.push_str(" COMPRESS=DEFLATE");
        }
        if !self.logged_in {
            if self.tls == Tls::Offered {
                list.push_str(" STARTTLS");
            }
            list.push_str(if self.may_login() { " AUTH=PLAIN" } else { " LOGINDISABLED" });
        }
        list
    }
}
