//! The PROXY protocol, version 2: how the gate tells accept who the client is, and what it found out about it.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, section 2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{BufMut as _, Bytes, BytesMut};

/// What every header begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header with its addresses and additions takes no more; ours have a few hundred bytes.
const LENGTH_MOST: usize = 4096;

/// The first type that the protocol leaves to its users.
const FACTS: u8 = 0xE0;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The client and the address that it connected to. None for a connection of the proxy's own (a health check).
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// What the gate adds; opaque here. Empty if nothing, or without addresses.
    pub facts: Bytes,
}

/// Why bytes are not a PROXY header.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProxyError {
    /// Not the protocol at all, or another version.
    #[error("not a PROXY header of version 2")]
    NotProxy,
    /// Longer than any that we send.
    #[error("a PROXY header of {0} bytes; at most {LENGTH_MOST} are taken")]
    TooLong(usize),
    /// The parts do not fit together.
    #[error("a malformed PROXY header: {0}")]
    Malformed(&'static str),
}

impl Header {
    /// Whether facts are short enough for a header.
    pub fn carries(facts: &[u8]) -> bool {
        facts.len() + 64 <= LENGTH_MOST
    }

    /// The header's bytes. Facts that would make it too long are left out: they are worth less than the mail.
    pub fn encode(&self) -> Bytes {
        let mut body = BytesMut::new();
        let (command, family) = match self.addresses {
            None => (0x20, 0x00),
            Some((client, server)) => match (client.ip(), server.ip()) {
                (IpAddr::V4(client_ip), IpAddr::V4(server_ip)) => {
                    body.put_slice(&client_ip.octets());
                    body.put_slice(&server_ip.octets());
                    body.put_u16(client.port());
                    body.put_u16(server.port());
                    (0x21, 0x11)
                }
                (client_ip, server_ip) => {
                    body.put_slice(&mapped(client_ip).octets());
                    body.put_slice(&mapped(server_ip).octets());
                    body.put_u16(client.port());
                    body.put_u16(server.port());
                    (0x21, 0x21)
                }
            },
        };
        // A receiver passes over everything behind the header of a connection of our own.
        if self.addresses.is_some()
            && let Ok(length) = u16::try_from(self.facts.len())
            && length > 0
            && Self::carries(&self.facts)
        {
            body.put_u8(FACTS);
            body.put_u16(length);
            body.put_slice(&self.facts);
        }
        let mut header = BytesMut::with_capacity(16 + body.len());
        header.put_slice(SIGNATURE);
        header.put_u8(command);
        header.put_u8(family);
        header.put_u16(u16::try_from(body.len()).unwrap_or(u16::MAX));
        header.put_slice(&body);
        header.freeze()
    }

    /// Reads a header from the start of what has come so far: the header and its length, or nothing while bytes are
    /// missing.
    ///
    /// # Errors
    /// As soon as the bytes cannot become a header that we take.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, ProxyError> {
        let seen = bytes.len().min(SIGNATURE.len());
        if bytes[..seen] != SIGNATURE[..seen] {
            return Err(ProxyError::NotProxy);
        }
        let Some((fixed, rest)) = bytes.split_first_chunk::<16>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
        if length > LENGTH_MOST {
            return Err(ProxyError::TooLong(length));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let (addresses, additions) = match (fixed[12], fixed[13]) {
            (0x20, _) => (None, &[][..]),
            // A client that the proxy cannot name: as if there were none.
            (0x21, 0x00) => (None, &[][..]),
            (0x21, 0x11) => addresses::<4>(body).map(|(pair, rest)| (Some(pair), rest))?,
            (0x21, 0x21) => addresses::<16>(body).map(|(pair, rest)| (Some(pair), rest))?,
            (0x21, _) => return Err(ProxyError::Malformed("only TCP over IPv4 and IPv6 is taken")),
            _ => return Err(ProxyError::NotProxy),
        };
        Ok(Some((Self { addresses, facts: facts(additions)? }, 16 + length)))
    }
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

type Pair = (SocketAddr, SocketAddr);

fn addresses<const N: usize>(body: &[u8]) -> Result<(Pair, &[u8]), ProxyError> {
    if body.len() < 2 * N + 4 {
        return Err(ProxyError::Malformed("the addresses are cut off"));
    }
    let (client, server) = (ip(&body[..N]), ip(&body[N..2 * N]));
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let pair = (SocketAddr::new(client, port(2 * N)), SocketAddr::new(server, port(2 * N + 2)));
    Ok((pair, &body[2 * N + 4..]))
}

fn ip(octets: &[u8]) -> IpAddr {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Ipv4Addr::from(octets).into();
    }
    let octets = <[u8; 16]>::try_from(octets).unwrap_or_default();
    Ipv6Addr::from(octets).to_canonical()
}

/// Finds our own addition among all; those of others are passed over.
fn facts(mut additions: &[u8]) -> Result<Bytes, ProxyError> {
    let mut found = Bytes::new();
    while let Some((head, rest)) = additions.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        let value = rest.get(..length).ok_or(ProxyError::Malformed("an addition is cut off"))?;
        if head[0] == FACTS {
            found = Bytes::copy_from_slice(value);
        }
        additions = &rest[length..];
    }
    if additions.is_empty() { Ok(found) } else { Err(ProxyError::Malformed("bytes are left over")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn header(client: &str, server: &str, facts: &'static [u8]) -> Header {
        let addresses = Some((client.parse().unwrap(), server.parse().unwrap()));
        Header { addresses, facts: Bytes::from_static(facts) }
    }

    #[test]
    fn known_bytes() {
        let bytes = header("192.0.2.1:4660", "198.51.100.7:25", b"hi").encode();
        let want =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x11\xc0\x00\x02\x01\xc6\x33\x64\x07\x12\x34\x00\x19\xe0\x00\x02hi";
        assert_eq!(&bytes[..], want);
    }

    #[test]
    fn round_trips() {
        for header in [
            header("192.0.2.1:1", "127.0.0.1:2525", b""),
            header("[2001:db8::1]:65535", "[::1]:25", b"facts"),
            Header { addresses: None, facts: Bytes::new() },
        ] {
            let mut bytes = header.encode().to_vec();
            let length = bytes.len();
            for cut in 0..length {
                assert_eq!(Header::decode(&bytes[..cut]), Ok(None), "cut at {cut}");
            }
            bytes.extend_from_slice(b"EHLO");
            assert_eq!(Header::decode(&bytes), Ok(Some((header, length))));
        }
    }

    #[test]
    fn additions_of_others_are_passed_over() {
        let bytes =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x17\xc0\0\x02\x01\xc6\x33\x64\x07\x12\x34\0\x19\x04\0\x01\0\x03\0\x04abcd";
        let want = header("192.0.2.1:4660", "198.51.100.7:25", b"");
        assert_eq!(Header::decode(bytes), Ok(Some((want, 39))));
    }

    #[test]
    fn nobody_is_named() {
        for start in [b"\x20\x00", b"\x20\x11", b"\x21\x00"] {
            let bytes = [&SIGNATURE[..], start, b"\0\x02ab"].concat();
            assert_eq!(Header::decode(&bytes), Ok(Some((Header { addresses: None, facts: Bytes::new() }, 18))));
        }
        let unfit = Header { addresses: None, facts: Bytes::from_static(b"facts") };
        assert_eq!(unfit.encode().len(), 16);
    }

    #[test]
    fn facts_too_long_are_left_out() {
        let mut long = header("192.0.2.1:1", "127.0.0.1:2525", b"");
        let bare = long.encode();
        long.facts = Bytes::from(vec![0; 5000]);
        assert_eq!(long.encode(), bare);
    }

    #[test]
    fn others_are_refused_at_once() {
        for bytes in [&b"EHLO"[..], b"PROXY TCP4 1.2.3.4", b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0", b"\r\n\r\n\0\r\nQUIX"] {
            assert_eq!(Header::decode(bytes), Err(ProxyError::NotProxy));
        }
        let long = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff";
        assert_eq!(Header::decode(long), Err(ProxyError::TooLong(65535)));
        let short = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x02ab";
        assert!(matches!(Header::decode(short), Err(ProxyError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(tail: Vec<u8>) {
            let _ = Header::decode(&tail);
            let _ = Header::decode(&[&SIGNATURE[..], &tail].concat());
        }
    }
}
