//! Asks clamd. Only a reply that says so in its exact words is a clean mail; whatever else comes is an error, and the
//! mail waits.

use std::io::{self, IoSlice};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::config::Clamd;
use crate::decide::Report;

/// Bytes in one piece of the stream to clamd.
const PIECE: usize = 128 * 1024;
/// A reply is a line. What is longer is cut, and with that no reply.
const REPLY: u64 = 4096;
/// What clamd finds where it has met a limit of its own: no virus, but not all of the mail was looked at.
const LIMITS: &str = "Heuristics.Limits.Exceeded";

/// What clamd says about these bytes.
///
/// # Errors
/// When clamd cannot be reached, breaks off, or says anything but clean or found.
pub(crate) async fn scan(clamd: &Clamd, mail: &[u8]) -> anyhow::Result<Report> {
    // In its `z` form the command and its reply end with a NUL, and in between goes each piece behind its length.
    let lengths = mail.chunks(PIECE).map(|piece| u32::try_from(piece.len()).map(u32::to_be_bytes));
    let lengths = lengths.collect::<Result<Vec<_>, _>>()?;
    let pieces = lengths.iter().zip(mail.chunks(PIECE)).flat_map(|(length, piece)| [&length[..], piece]);
    let said: Vec<&[u8]> = [&b"zINSTREAM\0"[..]].into_iter().chain(pieces).chain([&[0; 4][..]]).collect();
    read(&ask(clamd, &said).await.context("asking clamd")?)
}

/// Whether clamd answers at all.
///
/// # Errors
/// When it does not.
pub(crate) async fn ping(clamd: &Clamd) -> anyhow::Result<()> {
    if ask(clamd, &[b"zPING\0"]).await?.strip_suffix(b"\0") != Some(b"PONG") {
        bail!("clamd did not answer PONG");
    }
    Ok(())
}

/// Says all of this on a connection of its own, and hears what clamd says until it closes.
async fn ask(clamd: &Clamd, say: &[&[u8]]) -> io::Result<Vec<u8>> {
    match clamd {
        Clamd::Unix(path) => converse(UnixStream::connect(path).await?, say).await,
        Clamd::Tcp(address) => converse(TcpStream::connect(address).await?, say).await,
    }
}

/// Says it and gives the reply. A clamd that does not hear everything may have said why: that is in the error.
async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, say: &[&[u8]]) -> io::Result<Vec<u8>> {
    let said = tell(&mut stream, say).await;
    let mut reply = Vec::with_capacity(64);
    let heard = stream.take(REPLY).read_to_end(&mut reply).await;
    said.map_err(|error| {
        let why = String::from_utf8_lossy(&reply);
        io::Error::new(error.kind(), format!("clamd did not hear all of it: {error}; it says {why:?}"))
    })?;
    heard?;
    Ok(reply)
}

/// All goes out in one call if it can: each piece that comes by itself wakes clamd anew.
async fn tell(stream: &mut (impl AsyncWrite + Unpin), say: &[&[u8]]) -> io::Result<()> {
    let mut pieces: Vec<IoSlice<'_>> = say.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut left = &mut pieces[..];
    while !left.is_empty() {
        match stream.write_vectored(left).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => IoSlice::advance_slices(&mut left, count),
        }
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

    /// A clamd that hears so many bytes, and then says that.
    async fn told(mail: &[u8], hears: usize, says: &'static [u8]) -> (Vec<u8>, anyhow::Result<Report>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let clamd = Clamd::Tcp(listener.local_addr().unwrap());
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = vec![0; hears];
            stream.read_exact(&mut heard).await.unwrap();
            stream.write_all(says).await.unwrap();
            heard
        };
        tokio::join!(answer, scan(&clamd, mail))
    }

    #[tokio::test]
    async fn a_mail_goes_in_pieces_behind_their_lengths() {
        let mail: Vec<u8> = (0..300_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for length in [0, 1, 100, PIECE, PIECE + 1, 300_000] {
            let mail = &mail[..length];
            let mut want = b"zINSTREAM\0".to_vec();
            for piece in mail.chunks(PIECE) {
                want.extend(u32::try_from(piece.len()).unwrap().to_be_bytes());
                want.extend(piece);
            }
            want.extend([0; 4]);
            let (heard, report) = told(mail, want.len(), b"stream: OK\0").await;
            assert!(heard == want, "{length} bytes");
            assert_eq!(report.unwrap(), Report::Clean);
        }
    }

    #[tokio::test]
    async fn a_reply_without_end_is_none() {
        let (_, report) = told(b"x", 19, &[b'a'; 100_000]).await;
        assert!(report.is_err());
        let (_, report) = told(b"x", 3, b"").await;
        assert!(report.is_err());
    }

    #[tokio::test]
    async fn why_clamd_hears_no_more_is_told() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let answer = async move {
            theirs.read_exact(&mut [0; 3]).await.unwrap();
            theirs.write_all(b"INSTREAM size limit exceeded. ERROR\0").await.unwrap();
        };
        let (_, said) = tokio::join!(answer, converse(ours, &[&[b'a'; 1000]]));
        let error = said.unwrap_err().to_string();
        assert!(error.contains("it says \"INSTREAM size limit exceeded. ERROR"), "{error}");
    }
}
