//! `AsyncWrite` for stream adapters that change only reading.

/// Implements the named methods of `AsyncWrite`, or all of them, by forwarding to the adapter's field `stream`. The
/// adapter's file must import `io`, `Pin`, `Context` and `Poll`.
macro_rules! forward_writes {
    () => {
        forward_writes!(poll_write, poll_flush, poll_shutdown, poll_write_vectored, is_write_vectored);
    };
    (poll_write) => {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write(cx, bytes)
        }
    };
    (poll_flush) => {
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }
    };
    (poll_shutdown) => {
        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    };
    (poll_write_vectored) => {
        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[io::IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
        }
    };
    (is_write_vectored) => {
        fn is_write_vectored(&self) -> bool {
            self.stream.is_write_vectored()
        }
    };
    ($($method:ident),+) => { $(forward_writes!($method);)+ };
}

pub(crate) use forward_writes;
