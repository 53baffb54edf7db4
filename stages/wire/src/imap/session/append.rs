//! APPEND (RFC 3501 section 6.3.11): a message that the client brings in.
//!
//! Its text does not go through the fragmentizer: that keeps a whole command, and this is far longer than any. Room for it
//! is asked for before the client may send it. One that is refused is not sent, or read over without being kept if it comes
//! in any case (LITERAL+); either way the place is kept.

use super::flags::{Given, given, too_much};
use super::job::{Job, Running};
use super::naming::{Ending, NO_NAME, good, wire};
use super::{ImapSession, decode};
use crate::imap::extended::quoted;
use crate::imap::names::Spelling;
use crate::imap::question::{Answer, Appended, No, Placed, Question};
use bytes::BytesMut;
use imap_codec::fragmentizer::{FragmentInfo, LiteralAnnouncement};
use imap_types::command::CommandBody;
use imap_types::core::LiteralMode;

/// What is received before it is known how much will come.
const FIRST: usize = 16 * 1024;
/// Begins a message with names in UTF-8 (RFC 6855 section 4).
const UTF8: &[u8] = b" UTF8 (~";

/// An APPEND whose message is being received.
#[derive(Debug)]
pub(super) struct Append {
    tag: String,
    /// Empty, if no mailbox can have it.
    name: String,
    flags: i64,
    keywords: Vec<String>,
    received: Option<i64>,
    size: u32,
    mode: LiteralMode,
    /// Whether NUL may be in it (RFC 3516).
    is_binary: bool,
    /// What ends the command behind the message.
    end: &'static [u8],
    text: BytesMut,
    /// Bytes that are still to come.
    missing: usize,
    /// What the client hears in the end, if nothing becomes of it.
    refused: Option<String>,
}

impl ImapSession {
    /// Whether the literal that is announced is the message of an APPEND; then what follows is for [`Self::receive`].
    pub(super) fn begin_append(&mut self, announcement: LiteralAnnouncement) -> bool {
        let head = self.fragments.message_bytes();
        let Some(mut append) = read_head(head, announcement, self.spelling()) else { return false };
        self.fragments.skip_message();
        append.refused = if append.size > self.limits.message {
            Some(format!("NO [TOOBIG] a message has at most {} bytes", self.limits.message))
        } else if append.size == 0 {
            Some("NO an empty message is none".to_owned())
        } else if append.name.is_empty() {
            Some(NO_NAME.to_owned())
        } else {
            too_much(&append.keywords, self.limits.keywords)
        };
        let (tag, question) = (append.tag.clone(), Question::Room { name: append.name.clone(), size: append.size });
        let (is_refused, mode) = (append.refused.is_some(), append.mode);
        self.append = Some(append);
        match (is_refused, mode) {
            (false, _) => self.ask(tag, "APPEND", question, Job::Room),
            (true, LiteralMode::Sync) => self.give_up(),
            (true, LiteralMode::NonSync) => {}
        }
        true
    }

    /// Nothing is received any more, and the client hears why.
    fn give_up(&mut self) {
        let Some(append) = self.append.take() else { return };
        let why = append.refused.unwrap_or_else(|| "BAD the command does not end behind the message".to_owned());
        match why.strip_prefix("BAD ") {
            Some(why) => self.mistake(&append.tag, why),
            None => self.done(&append.tag, &why),
        }
    }

    pub(super) fn room_answered(&mut self, tag: &str, answer: Answer) {
        let why = match answer {
            Answer::Done => None,
            Answer::No(No::NoSuch) => Some(TRY_CREATE.to_owned()),
            Answer::No(why) => Some(format!("NO {}", why.words())),
            _ => Some("NO [UNAVAILABLE] not at the moment; try again".to_owned()),
        };
        // What was kept for a message that did not end as it should have is given back.
        let Some(append) = &mut self.append else {
            return self.mistake(tag, "the command does not end behind the message");
        };
        append.refused = why;
        match (&append.refused, append.mode) {
            (Some(_), LiteralMode::Sync) => self.give_up(),
            (None, LiteralMode::Sync) => self.put("+ go on\r\n"),
            (_, LiteralMode::NonSync) => {}
        }
    }

    /// Takes of the message what has come. Says whether anything was done.
    pub(super) fn receive(&mut self) -> bool {
        let Some(append) = &mut self.append else { return false };
        if append.missing == 0 {
            return self.receive_end();
        }
        let count = append.missing.min(self.incoming.len());
        let text = self.incoming.split_to(count);
        append.missing -= count;
        if append.refused.is_none() {
            append.text.extend_from_slice(&text);
        }
        count > 0
    }

    /// Behind the message the command ends; several messages in one (RFC 3502) are not taken.
    fn receive_end(&mut self) -> bool {
        let Some(fragment) = self.next_fragment() else { return false };
        let is_waiting = matches!(
            fragment,
            FragmentInfo::Line { announcement: Some(LiteralAnnouncement { mode: LiteralMode::Sync, .. }), .. }
        );
        if is_waiting {
            self.fragments.skip_message();
        } else if !self.fragments.is_message_complete() {
            return true;
        }
        let Some(append) = &mut self.append else { return true };
        let is_end = !is_waiting && self.fragments.message_bytes() == append.end;
        if is_end && append.refused.is_none() && !append.is_binary && append.text.contains(&0) {
            append.refused = Some("BAD a message has no NUL".to_owned());
        }
        if !is_end || append.refused.is_some() {
            let (tag, name, was_kept) = (append.tag.clone(), append.name.clone(), append.refused.is_none());
            if was_kept {
                self.append = None;
                self.ask(tag, "APPEND", Question::Room { name, size: 0 }, Job::Room);
            } else {
                self.give_up();
            }
            return true;
        }
        if let Some(Append { tag, name, flags, keywords, received, text, .. }) = self.append.take() {
            let job = Job::Append { name: name.clone() };
            let appended = Appended { name, flags, keywords, received, text: text.freeze() };
            self.ask(tag, "APPEND", Question::Append(appended), job);
        }
        true
    }

    /// What became of messages that were brought in, copied or moved.
    pub(super) fn placed(&mut self, running: Running, answer: Answer) {
        let Running { tag, name: command, job, .. } = running;
        let placed = match answer {
            Answer::Placed(placed) => placed,
            Answer::No(No::NoSuch) => return self.done(&tag, TRY_CREATE),
            Answer::No(why) => return self.refuse(&tag, why),
            _ => return self.done(&tag, "NO [SERVERBUG] an answer did not fit its question"),
        };
        match job {
            Job::Append { name } => {
                let uids = uid_set(&placed.to);
                let code = format!("[APPENDUID {} {uids}] ", placed.uidvalidity);
                self.finish_in(tag, command, &name, code);
            }
            Job::Copy { to, how } => self.copied(tag, command, &to, how, &placed),
            _ => {}
        }
    }

    /// The client is told of what is new, if it has that mailbox selected (RFC 3501 section 6.3.11).
    pub(super) fn finish_in(&mut self, tag: String, command: &'static str, name: &str, code: String) {
        if self.selected.as_ref().is_some_and(|selected| selected.name == name) {
            self.refresh(tag, command, Job::Placed(code));
        } else {
            self.done(&tag, &format!("OK {code}{command} done"));
        }
    }
}

const TRY_CREATE: &str = "NO [TRYCREATE] there is no such mailbox";

/// Reads an APPEND up to its message; none if that is something else, or the literal is not its message.
fn read_head(head: &[u8], announcement: LiteralAnnouncement, spelling: Spelling) -> Option<Append> {
    let (tag, command) = head.split_at_checked(memchr::memchr(b' ', head)? + 1)?;
    if !command.get(..7)?.eq_ignore_ascii_case(b"APPEND ") {
        return None;
    }
    let brace = memchr::memrchr(b'{', head)?;
    let utf8 = brace.checked_sub(UTF8.len()).filter(|at| head[*at..brace].eq_ignore_ascii_case(UTF8));
    // The rest of the command with an empty message: the codec need not see the whole.
    let empty = match utf8 {
        Some(at) => [&head[..at], b" {0}\r\n\r\n"].concat(),
        None => [&head[..brace], b"{0}\r\n\r\n"].concat(),
    };
    let plain = if spelling == Spelling::Utf8 { quoted::rid(&empty) } else { None };
    let CommandBody::Append { mailbox, flags, date, .. } = decode(&plain.unwrap_or(empty))?.body else { return None };
    // \Recent and what nobody knows are left out.
    let Given { flags, keywords, .. } = given(&flags);
    Some(Append {
        tag: String::from_utf8_lossy(tag.trim_ascii_end()).into_owned(),
        name: good(wire(&mailbox), spelling, Ending::Exact).unwrap_or_default(),
        flags,
        keywords,
        received: date.map(|date| date.as_ref().timestamp_millis()),
        size: announcement.length,
        mode: announcement.mode,
        is_binary: head[..brace].ends_with(b"~"),
        end: if utf8.is_some() { b")\r\n" } else { b"\r\n" },
        text: BytesMut::with_capacity(FIRST.min(announcement.length as usize)),
        missing: announcement.length as usize,
        refused: None,
    })
}

/// UIDs in their order, as a set (RFC 4315 section 4).
pub(super) fn uid_set(uids: &[u32]) -> String {
    let mut set = String::new();
    for run in uids.chunk_by(|one, next| one.checked_add(1) == Some(*next)) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let comma = if set.is_empty() { "" } else { "," };
        set.push_str(&if first == last { format!("{comma}{first}") } else { format!("{comma}{first}:{last}") });
    }
    set
}

impl Placed {
    /// The response code COPYUID (RFC 4315 section 3), or nothing if no message was there any more.
    pub(super) fn copy_code(&self) -> String {
        if self.to.is_empty() {
            return String::new();
        }
        format!("[COPYUID {} {} {}] ", self.uidvalidity, uid_set(&self.from), uid_set(&self.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_short() {
        for (uids, want) in [
            (&[][..], ""),
            (&[3], "3"),
            (&[1, 2, 3, 5, 7, 8], "1:3,5,7:8"),
            (&[u32::MAX - 1, u32::MAX], "4294967294:4294967295"),
        ] {
            assert_eq!(uid_set(uids), want);
        }
    }
}
