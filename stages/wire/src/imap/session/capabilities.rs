//! What the client is told that it may do.

use super::ImapSession;
use crate::session::Tls;

impl ImapSession {
    pub(super) fn capabilities(&self) -> String {
        let mut list = String::from(
            "IMAP4rev1 LITERAL+ SASL-IR IDLE ENABLE CONDSTORE QRESYNC UNSELECT SPECIAL-USE ESEARCH SEARCHRES WITHIN",
        );
        list.push_str(" SORT SORT=DISPLAY ESORT THREAD=ORDEREDSUBJECT THREAD=REFERENCES");
        if !self.logged_in {
            if self.tls == Tls::Offered {
                list.push_str(" STARTTLS");
            }
            list.push_str(if self.may_login() { " AUTH=PLAIN" } else { " LOGINDISABLED" });
        }
        list
    }
}
