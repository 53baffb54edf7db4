//! The end of a connection whose peer may still be sending: the last word has to reach it.
//!
//! To close a connection on which something has come that nobody has read is to take back what was written last. So
//! whoever says the last word to the outside reads on for a bounded time.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::tasks::Tasks;

/// A client that goes on sending behind the last word may take so long to hear it.
const LINGER: Duration = Duration::from_secs(5);
/// And so long when a shutdown has begun: enough for a round trip, and far below the grace.
const LINGER_AT_END: Duration = Duration::from_secs(1);

/// Says that nothing more comes, and reads on from a client that has been told the last word, until it closes.
pub async fn linger(client: &mut TcpStream, tasks: &Tasks) {
    if client.shutdown().await.is_err() {
        // It is gone already.
        return;
    }
    let mut nowhere = tokio::io::sink();
    let patience = async {
        tokio::select! {
            () = tokio::time::sleep(LINGER) => return,
            () = tasks.stopping() => {}
        }
        tokio::time::sleep(LINGER_AT_END).await;
    };
    tokio::select! {
        () = patience => {}
        _ = tokio::io::copy(client, &mut nowhere) => {}
    }
}
