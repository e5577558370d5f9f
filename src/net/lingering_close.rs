//! Closes a connection so that the client can read the last answer.
//!
//! Keeps true: the close ends within a bounded time, whatever the client does.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Sends the last answer, shuts down writing, and discards input until the client closes. Closing with unread input
/// would reset the connection, and the client could lose the answer.
pub async fn close(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), answer: &[u8]) {
    let close = async {
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        let mut scratch = [0; 1024];
        while stream.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    // After the timeout, the connection closes even if the client has not read the answer.
    let _ = tokio::time::timeout(LINGER, close).await;
}

const LINGER: Duration = Duration::from_secs(2);
