//! Before the login: capabilities, TLS, and who it is.

use super::ImapSession;
use super::job::Job;
use crate::imap::question::{Answer, Question};
use crate::secret::Secret;
use crate::session::Tls;
use imap_codec::fragmentizer::Fragmentizer;
use imap_types::auth::AuthMechanism;
use imap_types::command::CommandBody;

impl ImapSession {
    pub(super) fn before_login(&mut self, tag: String, body: CommandBody<'static>) {
        match body {
            CommandBody::StartTLS if self.tls == Tls::Offered => {
                self.done(&tag, "OK begin TLS");
                self.start_tls = true;
            }
            CommandBody::StartTLS => self.mistake(&tag, "TLS is not available"),
            CommandBody::Login { .. } | CommandBody::Authenticate { .. } if !self.may_login() => {
                self.done(&tag, "NO [PRIVACYREQUIRED] no password in the clear: use STARTTLS, or the port for TLS");
            }
            CommandBody::Login { username, password } => {
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                let password = Secret::new(text(password.declassify().as_ref()));
                self.login(tag, text(username.as_ref()), password);
            }
            CommandBody::Authenticate { mechanism: AuthMechanism::Plain, initial_response } => match initial_response {
                Some(initial) => self.plain(tag, initial.declassify()),
                None => {
                    self.put("+ \r\n");
                    self.sasl = Some(tag);
                }
            },
            CommandBody::Authenticate { .. } => self.done(&tag, "NO only AUTHENTICATE PLAIN is known"),
            _ => self.mistake(&tag, "log in first"),
        }
    }

    /// A SASL PLAIN response (RFC 4616).
    pub(super) fn plain(&mut self, tag: String, response: &[u8]) {
        let text = String::from_utf8_lossy(response).into_owned();
        match text.split('\0').collect::<Vec<_>>().as_slice() {
            [identity, user, password] if identity.is_empty() || identity == user => {
                self.login(tag, (*user).to_owned(), Secret::new((*password).to_owned()));
            }
            _ => self.mistake(&tag, "the response cannot be read"),
        }
    }

    pub(super) fn login(&mut self, tag: String, user: String, password: Secret<String>) {
        self.ask(tag, "LOGIN", Question::Login { user, password }, Job::Login);
    }

    pub(super) fn login_answered(&mut self, tag: &str, answer: Answer) {
        match answer {
            Answer::Done => {
                self.logged_in = true;
                self.fragments = Fragmentizer::new(self.limits.command);
                let capabilities = self.capabilities();
                self.done(tag, &format!("OK [CAPABILITY {capabilities}] logged in"));
            }
            Answer::Elsewhere(node) => {
                self.done(tag, &format!("NO [UNAVAILABLE] your mailbox is on the server {node}, not on this one"));
            }
            Answer::Crowded => {
                self.done(tag, "NO [LIMIT] this account has too many connections; close some");
            }
            _ => {
                self.failed_logins += 1;
                self.done(tag, "NO [AUTHENTICATIONFAILED] wrong user or password");
                if self.failed_logins >= self.limits.failed_logins {
                    self.put("* BYE too many failed logins\r\n");
                    self.closing = true;
                }
            }
        }
    }
}
