//! APPEND (RFC 3501 section 6.3.11): a message that the client brings in, or several that are kept all or none (RFC
//! 3502).
//!
//! Their texts do not go through the fragmentizer: that keeps a whole command, and these are far longer than any. Room
//! for each, and for those before it, is asked for before the client may send it. One that is refused is not sent, or
//! read over without being kept if it comes in any case (LITERAL+); either way the place is kept, and nothing becomes
//! of the others.

use super::flags::{Given, given, too_much};
use super::job::{Job, Running};
use super::naming::{Ending, NO_NAME, good, wire};
use super::{ImapSession, decode};
use crate::imap::extended::quoted;
use crate::imap::names::Spelling;
use crate::imap::question::{Answer, Appended, Incoming, No, Placed, Question};
use bytes::BytesMut;
use imap_codec::fragmentizer::{FragmentInfo, LiteralAnnouncement};
use imap_types::command::CommandBody;
use imap_types::core::LiteralMode;

/// What is received before it is known how much will come.
const FIRST: usize = 16 * 1024;
/// Bytes of one command that are received without asking for room: what a connection takes anyhow.
const FREE: usize = FIRST;
/// Bytes for which room is asked at once, when those before have come: what is only announced takes none.
const STEP: usize = 1 << 20;
/// Messages of one command: a tenth of a second of the shard's writer, for which deliveries wait.
const MOST: usize = 1000;
/// Bytes that a message takes beside its text and its keywords, while it waits for those behind it.
const HEAD: usize = 256;
/// Begins a message with names in UTF-8 (RFC 6855 section 4).
const UTF8: &[u8] = b" UTF8 (~";

/// An APPEND, of which a message is being received.
#[derive(Debug)]
pub(super) struct Append {
    tag: String,
    /// Empty, if no mailbox can have it.
    name: String,
    /// Those that have come.
    before: Vec<Incoming>,
    /// Their bytes.
    bytes: u32,
    /// What they and the one that is being received take beside their texts.
    heads: usize,
    now: Receiving,
    /// There may be room that has to be given back.
    has_room: bool,
    /// Bytes of all messages and their heads for which there is room in memory.
    room: usize,
    /// What the client hears in the end, if nothing becomes of it.
    refused: Option<String>,
}

/// A message that is being received.
#[derive(Debug)]
struct Receiving {
    flags: i64,
    keywords: Vec<String>,
    received: Option<i64>,
    size: u32,
    mode: LiteralMode,
    /// Whether NUL may be in it (RFC 3516).
    is_binary: bool,
    /// What stands behind it, before what comes next.
    end: &'static [u8],
    text: BytesMut,
    /// Bytes that are still to come.
    missing: usize,
}

impl From<Receiving> for Incoming {
    fn from(receiving: Receiving) -> Self {
        let Receiving { flags, keywords, received, text, .. } = receiving;
        Self { flags, keywords: keywords.join(" "), received, text: text.freeze() }
    }
}

impl Append {
    /// Nothing will become of it.
    fn refuse(&mut self, why: String) {
        self.refused = Some(why);
        (self.before, self.now.text) = (Vec::new(), BytesMut::new());
    }

    /// The message that was received has come as a whole.
    fn check(&mut self) {
        if self.refused.is_none() && !self.now.is_binary && self.now.text.contains(&0) {
            self.refuse("BAD a message has no NUL".to_owned());
        }
    }
}

impl ImapSession {
    /// Whether the literal that is announced is the message of an APPEND; then what follows is for [`Self::receive`].
    pub(super) fn begin_append(&mut self, announcement: LiteralAnnouncement) -> bool {
        let Some((tag, name, now)) = read_head(self.fragments.message_bytes(), announcement, self.spelling()) else {
            return false;
        };
        let refused = if name.is_empty() { Some(NO_NAME.to_owned()) } else { None };
        let append =
            Append { tag, name, before: Vec::new(), bytes: 0, heads: 0, now, has_room: false, room: FREE, refused };
        self.expect(append);
        true
    }

    /// Whether what is announced behind a message is the next one (RFC 3502).
    fn begin_next(&mut self, announcement: LiteralAnnouncement) -> bool {
        let spelling = self.spelling();
        let Some(mut append) = self.append.take_if(|append| append.refused.is_none()) else { return false };
        let rest = self.fragments.message_bytes().strip_prefix(append.now.end).filter(|rest| rest.starts_with(b" "));
        let head = rest.map(|rest| [b"a APPEND x", rest].concat());
        let Some((_, _, next)) = head.and_then(|head| read_head(&head, announcement, spelling)) else {
            append.refuse(NO_END.to_owned());
            self.append = Some(append);
            return false;
        };
        append.check();
        append.bytes = append.bytes.saturating_add(append.now.size);
        append.before.push(std::mem::replace(&mut append.now, next).into());
        if append.before.len() >= MOST {
            append.refuse(format!("NO [LIMIT] at most {MOST} messages in one command"));
        }
        self.expect(append);
        true
    }

    /// A message is to come, if it may.
    fn expect(&mut self, mut append: Append) {
        self.fragments.skip_message();
        let (now, most) = (&append.now, self.limits.message);
        let size = append.bytes.saturating_add(now.size);
        let why = if now.size > most {
            Some(format!("NO [TOOBIG] a message has at most {most} bytes"))
        } else if now.size == 0 {
            // RFC 3502 section 6.3.11: so the client gives up.
            Some("NO an empty message is none".to_owned())
        } else if size > most {
            Some(format!("NO [TOOBIG] the messages of one command have at most {most} bytes"))
        } else {
            too_much(&now.keywords, self.limits.keywords)
        };
        if let (Some(why), None) = (why, &append.refused) {
            append.refuse(why);
        }
        append.heads += HEAD + append.now.keywords.iter().map(|word| word.len() + 1).sum::<usize>();
        let (tag, question) = (append.tag.clone(), Question::Room { name: append.name.clone(), size });
        let (is_refused, mode) = (append.refused.is_some(), append.now.mode);
        self.append = Some(append);
        match (is_refused, mode) {
            (false, _) => self.ask(tag, "APPEND", question, Job::Room),
            (true, LiteralMode::Sync) => self.give_up(),
            (true, LiteralMode::NonSync) => {}
        }
    }

    /// Nothing is received any more, and the client hears why. What was kept for it is given back before.
    fn give_up(&mut self) {
        let Some(Append { tag, name, has_room, refused, .. }) = self.append.take() else { return };
        let why = refused.unwrap_or_else(|| NO_END.to_owned());
        if has_room {
            self.ask(tag, "APPEND", Question::Room { name, size: 0 }, Job::GiveUp(why));
        } else {
            self.given_up(&tag, &why);
        }
    }

    pub(super) fn given_up(&mut self, tag: &str, why: &str) {
        match why.strip_prefix("BAD ") {
            Some(why) => self.mistake(tag, why),
            None => self.done(tag, why),
        }
    }

    pub(super) fn room_answered(&mut self, answer: Answer) {
        let Some(append) = &mut self.append else { return };
        append.has_room |= answer == Answer::Done;
        match answer {
            Answer::Done => {}
            Answer::No(No::NoSuch) => append.refuse(TRY_CREATE.to_owned()),
            Answer::No(why) => append.refuse(format!("NO {}", why.words())),
            _ => append.refuse(NO_ROOM.to_owned()),
        }
        match (&append.refused, append.now.mode) {
            (Some(_), LiteralMode::Sync) => self.give_up(),
            (None, LiteralMode::Sync) => self.put("+ go on\r\n"),
            (_, LiteralMode::NonSync) => {}
        }
    }

    /// Whether a message is awaited.
    pub(super) fn is_receiving(&self) -> bool {
        self.append.as_ref().is_some_and(|append| append.now.missing > 0)
    }

    /// Whether there is room for more of the message. If not, the rest is read over.
    pub(super) fn may_receive(&mut self, answer: &Answer) {
        let Some(append) = &mut self.append else { return };
        if *answer == Answer::Done {
            append.room += STEP;
        } else {
            append.refuse(NO_ROOM.to_owned());
        }
    }

    /// Takes of the message what has come. Says whether anything was done.
    pub(super) fn receive(&mut self) -> bool {
        let Some(append) = &mut self.append else { return false };
        let now = &mut append.now;
        if now.missing == 0 {
            return self.receive_end();
        }
        let mut count = now.missing.min(self.incoming.len());
        if append.refused.is_none() {
            let free = append.room.saturating_sub(append.bytes as usize + append.heads + now.text.len());
            if free == 0 && count > 0 {
                let (tag, bytes) = (append.tag.clone(), append.room + STEP);
                self.ask(tag, "APPEND", Question::Receive(bytes as u64), Job::Receive);
                return true;
            }
            count = count.min(free);
        }
        let text = self.incoming.split_to(count);
        now.missing -= count;
        if append.refused.is_none() {
            now.text.extend_from_slice(&text);
        }
        count > 0
    }

    /// Behind the message the command ends, or the next one is announced. What follows one that was refused is read
    /// over.
    fn receive_end(&mut self) -> bool {
        let Some(fragment) = self.next_fragment() else { return false };
        if let FragmentInfo::Line { announcement: Some(announcement), .. } = fragment {
            if self.begin_next(announcement) {
                return true;
            }
            if announcement.mode == LiteralMode::Sync {
                self.fragments.skip_message();
                self.give_up();
                return true;
            }
        }
        if !self.fragments.is_message_complete() {
            return true;
        }
        let Some(mut append) = self.append.take() else { return true };
        append.check();
        let is_end = self.fragments.message_bytes() == [append.now.end, b"\r\n"].concat();
        if !is_end || append.refused.is_some() {
            self.append = Some(append);
            self.give_up();
            return true;
        }
        let Append { tag, name, mut before, now, .. } = append;
        before.push(now.into());
        let job = Job::Append { name: name.clone() };
        self.ask(tag, "APPEND", Question::Append(Appended { name, messages: before }), job);
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

const NO_END: &str = "BAD the command does not end behind the message";
const NO_ROOM: &str = "NO [UNAVAILABLE] not at the moment; try again";
const TRY_CREATE: &str = "NO [TRYCREATE] there is no such mailbox";

/// Reads an APPEND up to its message: its tag and the mailbox's name. None if that is something else, or the literal is
/// not its message.
fn read_head(
    head: &[u8],
    announcement: LiteralAnnouncement,
    spelling: Spelling,
) -> Option<(String, String, Receiving)> {
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
    let tag = String::from_utf8_lossy(tag.trim_ascii_end()).into_owned();
    let name = good(wire(&mailbox), spelling, Ending::Exact).unwrap_or_default();
    let receiving = Receiving {
        flags,
        keywords,
        received: date.map(|date| date.as_ref().timestamp_millis()),
        size: announcement.length,
        mode: announcement.mode,
        is_binary: head[..brace].ends_with(b"~"),
        end: if utf8.is_some() { b")" } else { b"" },
        text: BytesMut::with_capacity(FIRST.min(announcement.length as usize)),
        missing: announcement.length as usize,
    };
    Some((tag, name, receiving))
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
