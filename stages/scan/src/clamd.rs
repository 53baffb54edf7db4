//! Asks clamd. Only a reply that says so in its exact words is a clean mail; whatever else comes is an error, and the mail
//! waits.

use anyhow::{Context as _, bail};
use clamav_client::tokio::{Socket, Tcp, scan_buffer};

use crate::config::Clamd;
use crate::decide::Report;

/// Bytes in one piece of the stream to clamd.
const PIECE: usize = 128 * 1024;
/// What clamd finds where it has met a limit of its own: no virus, but not all of the mail was looked at.
const LIMITS: &str = "Heuristics.Limits.Exceeded";

/// What clamd says about these bytes.
///
/// # Errors
/// When clamd cannot be reached, breaks off, or says anything but clean or found.
pub(crate) async fn scan(clamd: &Clamd, mail: &[u8]) -> anyhow::Result<Report> {
    let piece = Some(PIECE.min(mail.len().max(1)));
    let reply = match clamd {
        Clamd::Unix(path) => scan_buffer(mail, Socket { socket_path: path }, piece).await,
        Clamd::Tcp(address) => scan_buffer(mail, Tcp { host_address: address }, piece).await,
    };
    read(&reply.context("asking clamd")?)
}

/// Whether clamd answers at all.
///
/// # Errors
/// When it does not.
pub(crate) async fn ping(clamd: &Clamd) -> anyhow::Result<()> {
    let reply = match clamd {
        Clamd::Unix(path) => clamav_client::tokio::ping(Socket { socket_path: path }).await,
        Clamd::Tcp(address) => clamav_client::tokio::ping(Tcp { host_address: address }).await,
    };
    if reply?.strip_suffix(b"\0") != Some(b"PONG") {
        bail!("clamd did not answer PONG");
    }
    Ok(())
}

/// Reads clamd's reply to INSTREAM in its `z` form: one text that ends with a NUL.
fn read(reply: &[u8]) -> anyhow::Result<Report> {
    let Some(text) = reply.strip_suffix(b"\0").and_then(|text| std::str::from_utf8(text).ok()) else {
        bail!("clamd's reply is incomplete or not text");
    };
    match text.strip_prefix("stream: ").map(|rest| rest.strip_suffix(" FOUND").ok_or(rest)) {
        Some(Ok(name)) if name.starts_with(LIMITS) => Ok(Report::Partly(name.to_owned())),
        Some(Ok(name)) if !name.is_empty() => Ok(Report::Found(name.to_owned())),
        Some(Err("OK")) => Ok(Report::Clean),
        _ => bail!("clamd says {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_exact_words_count() {
        assert_eq!(read(b"stream: OK\0").unwrap(), Report::Clean);
        assert_eq!(
            read(b"stream: Eicar-Test-Signature FOUND\0").unwrap(),
            Report::Found("Eicar-Test-Signature".into())
        );
        for limit in ["Heuristics.Limits.Exceeded.MaxScanSize", "Heuristics.Limits.Exceeded"] {
            assert_eq!(read(format!("stream: {limit} FOUND\0").as_bytes()).unwrap(), Report::Partly(limit.into()));
        }
        for odd in [
            &b""[..],
            b"\0",
            b"stream: OK",
            b"stream: OK\n",
            b"OK\0",
            b"stream: NOT OK\0",
            b"stream:  FOUND\0",
            b"stream: OK\0stream: OK",
            b"INSTREAM size limit exceeded. ERROR\0",
            b"stream: Can't allocate memory ERROR\0",
            b"\xff\xff\0",
        ] {
            assert!(read(odd).is_err(), "{odd:?}");
        }
    }
}
