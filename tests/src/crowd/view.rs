//! What a client knows of its mailbox, from nothing but what it was told; and what it must not be told.

use std::collections::BTreeSet;

use crate::imaptest::item::Item;

/// A message as the client knows it.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub uid: Option<u32>,
    pub flags: BTreeSet<String>,
    pub marker: Option<String>,
    modseq: u64,
    /// The highest UID that the client knew when the message was announced: its own is above it.
    floor: u32,
}

/// What a client knows of its mailbox.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub uidvalidity: u32,
    pub uidnext: u32,
    pub modseq: u64,
    pub rows: Vec<Row>,
    /// The highest UID ever seen, of messages that are gone too.
    top: u32,
}

/// Whether a command lets the server take numbers away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// RFC 3501 section 7.4.1: not while FETCH, STORE or SEARCH run.
    Stand,
    Move,
}

/// What became known by a reply.
#[derive(Debug, Default)]
pub struct News {
    pub gone: Vec<u32>,
    pub named: Option<(u32, String)>,
}

fn number(item: Option<&Item>) -> Option<u32> {
    std::str::from_utf8(item?.octets()?).ok()?.parse().ok()
}

/// The numbers of a set like `1:3,7`.
pub fn set(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once(':').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().unwrap_or(0), last.parse().unwrap_or(0));
        first.min(last)..=first.max(last)
    };
    text.split(',').filter(|part| !part.is_empty()).flat_map(range).collect()
}

impl View {
    /// The UIDs that are known.
    pub fn uids(&self) -> BTreeSet<u32> {
        self.rows.iter().filter_map(|row| row.uid).collect()
    }

    /// Takes in a reply; or says what is wrong with it.
    pub fn hear(&mut self, reply: &[Item], numbers: Numbers) -> Result<News, String> {
        let mut news = News::default();
        match reply {
            [count, word] if word.is("exists") => self.exists(number(Some(count)).ok_or("no number")? as usize)?,
            [at, word] if word.is("expunge") => {
                let at = number(Some(at)).ok_or("no number")? as usize;
                if numbers == Numbers::Stand || at == 0 || at > self.rows.len() {
                    return Err(format!("EXPUNGE of {at} of {} must not come here", self.rows.len()));
                }
                news.gone.extend(self.rows.remove(at - 1).uid);
            }
            [word, Item::Text(uids)] if word.is("vanished") => {
                if numbers == Numbers::Stand {
                    return Err("VANISHED must not come here".to_owned());
                }
                news.gone = set(&String::from_utf8_lossy(uids));
                news.gone.iter().for_each(|uid| self.vanish(*uid));
            }
            // Of the time before the mailbox was selected: what the client may still remember.
            [word, Item::List(_), Item::Text(uids)] if word.is("vanished") => {
                let uids: BTreeSet<u32> = set(&String::from_utf8_lossy(uids)).into_iter().collect();
                self.rows.retain(|row| row.uid.is_none_or(|uid| !uids.contains(&uid)));
            }
            [at, word, Item::List(items)] if word.is("fetch") => {
                news.named = self.fetched(number(Some(at)).ok_or("no number")? as usize, items)?;
            }
            [word, Item::List(code)] if word.is("ok") => self.code(code)?,
            [word, ..] if word.is("bye") => return Err("BYE".to_owned()),
            _ => {}
        }
        Ok(news)
    }

    fn exists(&mut self, count: usize) -> Result<(), String> {
        if count < self.rows.len() {
            return Err(format!("{count} EXISTS, and {} were there", self.rows.len()));
        }
        self.rows.resize(count, Row { floor: self.top, ..Row::default() });
        Ok(())
    }

    /// A message that was announced, and whose UID nobody asked for yet, may be it.
    fn vanish(&mut self, uid: u32) {
        let known = self.rows.iter().position(|row| row.uid == Some(uid));
        let at = known.or_else(|| self.rows.iter().position(|row| row.uid.is_none() && row.floor < uid));
        if let Some(at) = at {
            self.rows.remove(at);
        }
    }

    fn code(&mut self, code: &[Item]) -> Result<(), String> {
        let Some(value) =
            code.get(1).and_then(Item::octets).and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok())
        else {
            return Ok(());
        };
        let small = u32::try_from(value).unwrap_or_default();
        if code[0].is("uidvalidity") {
            self.uidvalidity = small;
        } else if code[0].is("uidnext") {
            self.uidnext = small;
        } else if code[0].is("highestmodseq") {
            if value < self.modseq {
                return Err(format!("HIGHESTMODSEQ goes back from {} to {value}", self.modseq));
            }
            self.modseq = value;
        }
        Ok(())
    }

    fn fetched(&mut self, at: usize, items: &[Item]) -> Result<Option<(u32, String)>, String> {
        let count = self.rows.len();
        let row =
            self.rows.get_mut(at.wrapping_sub(1)).ok_or_else(|| format!("FETCH of {at}, and there are {count}"))?;
        for pair in items.chunks(2) {
            let [name, value] = pair else { return Err("FETCH without a value".to_owned()) };
            match value {
                Item::List(flags) if name.is("flags") => {
                    let flags =
                        flags.iter().filter_map(Item::octets).map(|flag| String::from_utf8_lossy(flag).to_lowercase());
                    row.flags = flags.filter(|flag| flag != "\\recent").collect();
                }
                Item::List(modseq) if name.is("modseq") => {
                    let modseq = number(modseq.first()).map_or(0, u64::from);
                    if modseq < row.modseq {
                        return Err(format!("the MODSEQ of {at} goes back from {} to {modseq}", row.modseq));
                    }
                    row.modseq = modseq;
                }
                Item::Text(_) if name.is("uid") => {
                    let uid = number(Some(value)).ok_or("no number")?;
                    if row.uid.is_some_and(|known| known != uid) || row.uid.is_none() && uid <= row.floor {
                        return Err(format!(
                            "{at} was {:?} and now is {uid}, new ones are above {}",
                            row.uid, row.floor
                        ));
                    }
                    row.uid = Some(uid);
                    self.top = self.top.max(uid);
                }
                _ if name.octets().is_some_and(|name| name.to_ascii_lowercase().starts_with(b"body[header")) => {
                    let text = String::from_utf8_lossy(value.octets().unwrap_or_default()).into_owned();
                    row.marker = text.trim().get("Subject: ".len()..).map(str::to_owned);
                }
                _ => {}
            }
        }
        let named = row.uid.zip(row.marker.clone());
        let known: Vec<u32> = self.rows.iter().filter_map(|row| row.uid).collect();
        match known.windows(2).find(|pair| pair[0] >= pair[1]) {
            Some(pair) => Err(format!("the UIDs do not rise: {} and {}", pair[0], pair[1])),
            None => Ok(named),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaptest::item::parse;

    #[track_caller]
    fn check(replies: &[&str], numbers: Numbers, want: Option<&[u32]>) {
        let mut view = View::default();
        let heard: Result<Vec<_>, _> =
            replies.iter().map(|reply| view.hear(&parse(reply.as_bytes()), numbers)).collect();
        assert_eq!(heard.ok().map(|_| view.uids().into_iter().collect::<Vec<_>>()).as_deref(), want, "{replies:?}");
    }

    #[test]
    fn what_a_client_is_told() {
        use Numbers::{Move, Stand};
        check(&["2 EXISTS", "1 FETCH (UID 5)", "2 FETCH (UID 7)"], Stand, Some(&[5, 7]));
        check(&["2 EXISTS", "1 EXISTS"], Move, None);
        check(&["2 EXISTS", "1 FETCH (UID 5)", "2 FETCH (UID 5)"], Move, None);
        check(&["2 EXISTS", "1 FETCH (UID 5)", "1 FETCH (UID 6)"], Move, None);
        check(&["1 EXISTS", "2 FETCH (UID 5)"], Move, None);
        check(&["1 EXISTS", "1 FETCH (UID 5)", "1 EXPUNGE"], Move, Some(&[]));
        check(&["1 EXISTS", "1 FETCH (UID 5)", "1 EXPUNGE"], Stand, None);
        check(&["1 EXISTS", "1 FETCH (UID 5)", "1 EXPUNGE", "1 EXISTS", "1 FETCH (UID 5)"], Move, None);
        check(&["3 EXISTS", "1 FETCH (UID 5)", "2 FETCH (UID 7)", "VANISHED 1:5,9"], Move, Some(&[7]));
        check(&["OK [HIGHESTMODSEQ 4] x", "OK [HIGHESTMODSEQ 3] x"], Move, None);
        check(&["1 EXISTS", "1 FETCH (MODSEQ (4))", "1 FETCH (MODSEQ (3))"], Move, None);
        check(&["BYE"], Move, None);
    }
}
