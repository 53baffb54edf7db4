//! The resolver of the stages that ask DNS: the system's, or one name server of the operator's choice.
//!
//! It has a cache of its own, bounded in entries. A look-up that is not answered in time is an error for the caller to
//! read as "unknown"; nothing here decides about mail.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use crate::config::Section;

/// Answers kept by one resolver; an answer takes some hundred bytes.
const CACHED: u64 = 20_000;

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
    options.cache_size = CACHED;
    Ok(builder.build()?)
}

/// Whether an address belongs to nobody on the public net: no list and no reverse name knows it.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified(),
    }
}
