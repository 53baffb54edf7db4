//! The resolver of the stages that ask DNS: the system's, or one name server of the operator's choice.
//!
//! It has a cache of its own, bounded in entries. A look-up that is not answered in time is an error for the caller to
//! read as "unknown"; nothing here decides about mail.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use crate::config::Section;

/// Answers kept by one resolver; an answer takes some hundred bytes.
const CACHED: u64 = 20_000;

/// A "no" holds for so long at least: a server that gives it no time (RFC 2308 section 5), or none to speak of, would
/// be asked again for every mail of a burst.
const NO_HOLDS: Duration = Duration::from_secs(10);

/// Reads the key `resolver` of a section: none is the system's.
pub fn read(section: &mut Section) -> Option<SocketAddr> {
    let text = section.text(
        "resolver",
        "system",
        "The name server that is asked, as an address with its port; `system` is that of the system.",
    );
    if text == "system" {
        return None;
    }
    let address = text.parse().ok();
    if address.is_none() {
        section.wrong("resolver", format_args!("{text:?} is neither `system` nor an address with a port"));
    }
    address
}

/// A resolver that asks this name server, or the system's. A look-up ends within `deadline`, a second attempt included.
///
/// # Errors
/// When the system's configuration cannot be read.
pub fn resolver(address: Option<SocketAddr>, deadline: Duration) -> anyhow::Result<TokioResolver> {
    build(address, deadline, |options| {
        options.cache_size = CACHED;
        options.negative_min_ttl = Some(NO_HOLDS);
    })
}

/// The same without a memory: what it hears was said just now.
///
/// # Errors
/// When the system's configuration cannot be read.
pub fn forgetful(address: Option<SocketAddr>, deadline: Duration) -> anyhow::Result<TokioResolver> {
    build(address, deadline, |options| {
        options.cache_size = 0;
        options.positive_max_ttl = Some(Duration::ZERO);
        options.negative_max_ttl = Some(Duration::ZERO);
    })
}

fn build(
    address: Option<SocketAddr>,
    deadline: Duration,
    remember: impl FnOnce(&mut ResolverOpts),
) -> anyhow::Result<TokioResolver> {
    let mut builder = match address {
        None => TokioResolver::builder_tokio().context("reading the system's resolver configuration")?,
        Some(address) => {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = address.port();
                connection
            });
            let server = NameServerConfig::new(address.ip(), true, connections.to_vec());
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.timeout = deadline / 2;
    options.attempts = 1;
    remember(options);
    Ok(builder.build()?)
}

/// Sockets that one question may have open at once: a new one for each time it is sent, and one that is not answered is
/// sent so often within its time.
pub const SOCKETS: u64 = 3;

/// Whether this error means that who was asked has said nothing. What fails in this process (it has no descriptor left,
/// or no memory for the system's buffers) tells nothing of others: a sender could bring it about, and everybody would
/// be taken for silent.
pub fn is_silence(error: &NetError) -> bool {
    match error {
        NetError::Timeout => true,
        NetError::Io(error) => matches!(
            error.kind(),
            ErrorKind::TimedOut
                | ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
        ),
        _ => false,
    }
}

/// Whether an address belongs to nobody on the public net: no list and no reverse name knows it.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::UdpSocket;

    use super::*;

    /// Says that no name is there, and not for how long; counts the questions.
    async fn nothing_is_there(socket: UdpSocket, asked: &AtomicUsize) {
        let mut message = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut message).await.unwrap();
            asked.fetch_add(1, Ordering::Relaxed);
            // A response, recursion available, NXDOMAIN (RFC 1035 section 4.1.1); nothing in its sections.
            message[2] |= 0x80;
            message[3] = 0x83;
            message[6..12].fill(0);
            let question = 12 + message[12..length].iter().position(|byte| *byte == 0).unwrap() + 5;
            socket.send_to(&message[..question], from).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_no_without_a_time_is_remembered() {
        let (socket, asked) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), AtomicUsize::new(0));
        let resolver = resolver(Some(socket.local_addr().unwrap()), Duration::from_secs(30)).unwrap();
        let ask = async {
            for _ in 0..3 {
                assert!(resolver.txt_lookup("nobody.example.").await.unwrap_err().is_no_records_found());
            }
        };
        tokio::select! {
            () = nothing_is_there(socket, &asked) => {}
            () = ask => {}
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
