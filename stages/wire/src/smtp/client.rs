//! The client's few needs: reading replies, and dot-stuffing.

use bytes::{BufMut as _, Bytes, BytesMut};

/// Takes one whole reply, of one line or several, off the front of `input`: its code and its lines. None while it is
/// incomplete; an error when it is no SMTP reply.
///
/// # Errors
/// The line that cannot be read.
pub fn take_reply(input: &mut BytesMut) -> Result<Option<(u16, Vec<String>)>, String> {
    let (mut lines, mut used) = (Vec::new(), 0);
    loop {
        let Some(end) = memchr::memchr(b'\n', &input[used..]) else { return Ok(None) };
        let line = String::from_utf8_lossy(&input[used..used + end]).trim_end_matches('\r').to_owned();
        used += end + 1;
        let code = line.get(..3).and_then(|code| code.parse::<u16>().ok()).ok_or_else(|| line.clone())?;
        let last = !line[3..].starts_with('-');
        lines.push(line.get(4..).unwrap_or("").to_owned());
        if last {
            let _ = input.split_to(used);
            return Ok(Some((code, lines)));
        }
    }
}

/// The body as it goes behind DATA: dots doubled at the start of lines, the end added (RFC 5321 section 4.5.2). A body
/// whose last line has no end gets one.
pub fn stuff(body: &[u8]) -> Bytes {
    let mut stuffed = BytesMut::with_capacity(body.len() + body.len() / 50 + 8);
    let mut rest = body;
    while !rest.is_empty() {
        if rest[0] == b'.' {
            stuffed.put_u8(b'.');
        }
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        stuffed.put_slice(&rest[..end]);
        rest = &rest[end..];
    }
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
        assert!(take_reply(&mut BytesMut::from(&b"hello\r\n"[..])).is_err());
    }

    #[test]
    fn stuffing() {
        for (body, want) in [
            (&b""[..], &b".\r\n"[..]),
            (b".\r\n..a\r\nb\r\n", b"..\r\n...a\r\nb\r\n.\r\n"),
            (b"no end", b"no end\r\n.\r\n"),
        ] {
            assert_eq!(&stuff(body)[..], want);
        }
    }
}
