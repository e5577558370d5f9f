//! The end of a connection whose client is still to read something.
//!
//! Keeps true: it is over within a bounded time, whatever the client does.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Says the last of a connection, and waits a little for the client to have read it: closing on unread input would reset
/// the connection and lose it.
pub async fn close(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), words: &[u8]) {
    let close = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        let mut scratch = [0; 1024];
        while stream.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    // Whoever is this slow to read the last words has lost interest in them.
    let _ = tokio::time::timeout(LINGER, close).await;
}

const LINGER: Duration = Duration::from_secs(2);
