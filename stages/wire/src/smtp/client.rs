//! The client's few needs: reading replies, and dot-stuffing.

use bytes::{BufMut as _, Bytes, BytesMut};

/// A reply takes no more than this; a server that sends more without end is not worth waiting for.
const REPLY_MOST: usize = 64 * 1024;

/// Takes one whole reply, of one line or several (RFC 5321 section 4.2.1), off the front of `input`: its code and its
/// lines without it. None while it is incomplete.
///
/// # Errors
/// The line that cannot be read, when this is no SMTP reply.
pub fn take_reply(input: &mut BytesMut) -> Result<Option<(u16, Vec<String>)>, String> {
    let (mut lines, mut used) = (Vec::new(), 0);
    loop {
        let Some(end) = memchr::memchr(b'\n', &input[used..]) else {
            return if input.len() > REPLY_MOST { Err("a reply without end".to_owned()) } else { Ok(None) };
        };
        let line = String::from_utf8_lossy(&input[used..used + end]).trim_end_matches('\r').to_owned();
        used += end + 1;
        let Some((code, text)) = line.split_at_checked(3).filter(|(code, _)| is_code(code)) else { return Err(line) };
        lines.push(text.get(1..).unwrap_or("").to_owned());
        if text.starts_with('-') {
            continue;
        }
        let code = code.parse().map_err(|_| line.clone())?;
        let _ = input.split_to(used);
        return Ok(Some((code, lines)));
    }
}

fn is_code(code: &str) -> bool {
    matches!(code.as_bytes(), [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9'])
}

/// The body as it goes behind DATA: dots doubled at the start of lines, the end added (RFC 5321 section 4.5.2). A body
/// whose last line has no end gets one.
pub fn stuff(body: &[u8]) -> Bytes {
    let mut stuffed = BytesMut::with_capacity(body.len() + body.len() / 50 + 8);
    if body.starts_with(b".") {
        stuffed.put_u8(b'.');
    }
    let mut copied = 0;
    for at in memchr::memmem::find_iter(body, b"\r\n.") {
        stuffed.put_slice(&body[copied..at + 3]);
        stuffed.put_u8(b'.');
        copied = at + 3;
    }
    stuffed.put_slice(&body[copied..]);
    if !body.is_empty() && !body.ends_with(b"\r\n") {
        stuffed.put_slice(b"\r\n");
    }
    stuffed.put_slice(b".\r\n");
    stuffed.freeze()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn replies_of_several_lines() {
        let mut input = BytesMut::from(&b"250-a\r\n250-b\r\n25"[..]);
        assert_eq!(take_reply(&mut input), Ok(None));
        input.extend_from_slice(b"0 c\r\n354 go\r\n");
        let lines = ["a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(take_reply(&mut input).unwrap(), Some((250, lines)));
        assert_eq!(take_reply(&mut input).unwrap().unwrap().0, 354);
        for bad in ["hello\r\n", "+25 a\r\n", "99\r\n", "600 a\r\n", "\r\n"] {
            assert!(take_reply(&mut BytesMut::from(bad)).is_err(), "{bad}");
        }
        assert_eq!(take_reply(&mut BytesMut::from("250\r\n")).unwrap(), Some((250, vec![String::new()])));
    }

    #[test]
    fn stuffing() {
        for (body, want) in [
            (&b""[..], &b".\r\n"[..]),
            (b".\r\n..a\r\nb\r\n", b"..\r\n...a\r\nb\r\n.\r\n"),
            (b"a\n.b\r\n.\r\n.", b"a\n.b\r\n..\r\n..\r\n.\r\n"),
            (b"no end", b"no end\r\n.\r\n"),
        ] {
            assert_eq!(&stuff(body)[..], want);
        }
    }
}
