//! Reading what has come already, as much as there is, without any room set aside in connections that are silent.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;

use futures::FutureExt as _;
use tokio::io::{AsyncRead, ReadBuf};

/// The most that is read at once: a mail of a usual size in one call or two, and little beside a thread's stack.
pub const MOST: usize = 64 * 1024;

/// Gives what is there already, at most so much, to `take`, and says how much it was; nothing if nothing is there. The
/// room for it lies on the stack.
pub fn read_at_once(
    from: &mut (impl AsyncRead + Unpin),
    most: usize,
    take: impl FnOnce(&[u8]),
) -> Option<io::Result<usize>> {
    let mut room = [const { MaybeUninit::uninit() }; MOST];
    let mut buffer = ReadBuf::uninit(&mut room[..most.min(MOST)]);
    let read = poll_fn(|context| Pin::new(&mut *from).poll_read(context, &mut buffer)).now_or_never()?;
    let bytes = buffer.filled();
    if read.is_ok() && !bytes.is_empty() {
        take(bytes);
    }
    Some(read.map(|()| bytes.len()))
}

/// Waits until there is something to read again. Whoever reads on and on has spent what tokio lets a task do in one go,
/// and is told that nothing is there; that the socket is readable costs nothing. Between the two it would go round for
/// ever.
///
/// # Errors
/// Those of `readable`.
pub async fn wait(readable: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    tokio::task::consume_budget().await;
    readable.await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::{consume_budget, coop};

    use super::*;

    #[tokio::test]
    async fn who_has_read_too_much_in_one_go_lets_others_and_reads_on() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut here = listener.accept().await.unwrap().0;
        there.try_write(b"abc").unwrap();
        here.readable().await.unwrap();
        while coop::has_budget_remaining() {
            consume_budget().await;
        }
        assert!(read_at_once(&mut here, MOST, |_| unreachable!()).is_none());
        wait(here.readable()).await.unwrap();
        assert_eq!(read_at_once(&mut here, MOST, |_| {}).unwrap().unwrap(), 3);
    }

    /// What is read of these bytes at once.
    #[track_caller]
    fn check(mut bytes: &[u8], most: usize, want: usize) {
        let (whole, mut taken) = (bytes, None);
        assert_eq!(read_at_once(&mut bytes, most, |bytes| taken = Some(bytes.to_vec())).unwrap().unwrap(), want);
        assert_eq!(taken, (want > 0).then(|| whole[..want].to_vec()));
    }

    #[test]
    fn as_much_as_there_is_and_as_may_be() {
        check(b"", 10, 0);
        check(b"abc", 10, 3);
        check(b"abc", 2, 2);
        check(&[7; 2 * MOST], MOST, MOST);
        check(&[7; 2 * MOST], 2 * MOST, MOST);
    }

    #[test]
    fn nothing_when_nothing_has_come() {
        let (mut here, there) = tokio::io::duplex(10);
        assert!(read_at_once(&mut here, MOST, |_| unreachable!()).is_none());
        drop(there);
        assert_eq!(read_at_once(&mut here, MOST, |_| unreachable!()).unwrap().unwrap(), 0);
    }
}
