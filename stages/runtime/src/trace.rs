//! The trace context of a mail on its way, in the header `traceparent` (<https://www.w3.org/TR/trace-context/>).
//!
//! The trace is the mail: both ids have 16 bytes, and they are the same. The parent is the hop that published the
//! message. So a mail can be followed through programs that are not ours, too. What cannot be read is passed over:
//! nothing depends on it.

use proto::MailId;

/// The header.
pub(crate) const HEADER: &str = "traceparent";

/// The header's value for what is published with this message id, if that begins with a mail's.
pub(crate) fn parent(message_id: &str) -> Option<String> {
    let (mail, _) = message_id.split_once('.')?;
    let mail: MailId = mail.parse().ok()?;
    let trace = u128::from_be_bytes(mail.to_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(message_id.as_bytes()).as_bytes();
    // Zero would mean that there is none.
    let hop = u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1);
    Some(format!("00-{trace:032x}-{hop:016x}-01"))
}

/// The trace and the parent that a header names.
pub(crate) fn read(header: &str) -> Option<(&str, &str)> {
    let mut parts = header.split('-');
    let (version, trace, parent) = (parts.next()?, parts.next()?, parts.next()?);
    // The flags; later versions may have more behind them.
    parts.next()?;
    let is_hex =
        |text: &str, digits| text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_one = |text: &str, digits| is_hex(text, digits) && text.bytes().any(|byte| byte != b'0');
    let is_good = is_hex(version, 2) && version != "ff" && is_one(trace, 32) && is_one(parent, 16);
    is_good.then_some((trace, parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_is_the_mail() {
        let mail = MailId::from_bytes(*b"0123456789abcdef");
        let header = parent(&proto::subjects::message_id(mail, "scan-1", 0)).expect("a mail's id");
        let (trace, hop) = read(&header).expect("it can be read");
        assert_eq!(trace, "30313233343536373839616263646566");
        let other = parent(&proto::subjects::message_id(mail, "scan-2", 0)).expect("a mail's id");
        assert_ne!(read(&other), Some((trace, hop)));
        assert_eq!(parent("no mail"), None);
    }

    #[test]
    fn what_is_no_trace_is_passed_over() {
        let (trace, hop) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for (header, is_good) in [
            (format!("00-{trace}-{hop}-01"), true),
            (format!("cc-{trace}-{hop}-01-more"), true),
            (format!("ff-{trace}-{hop}-01"), false),
            (format!("00-{}-{hop}-01", "0".repeat(32)), false),
            (format!("00-{trace}-{}-01", "0".repeat(16)), false),
            (format!("00-{}-{hop}-01", trace.to_uppercase()), false),
            (format!("00-{trace}-{hop}"), false),
            (String::new(), false),
        ] {
            assert_eq!(read(&header), is_good.then_some((trace, hop)), "{header}");
        }
    }
}
