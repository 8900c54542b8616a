//! A socket on which a write that does not go on for a while is an error: who does not read loses the connection, and holds nothing else up.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// The socket.
pub(super) struct Paced {
    socket: TcpStream,
    patience: Duration,
    /// When patience with the write under way ends.
    due: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl Paced {
    /// A socket whose writes may rest for `patience`.
    pub(super) fn new(socket: TcpStream, patience: Duration) -> Self {
        Self { socket, patience, due: Box::pin(tokio::time::sleep(patience)), is_waiting: false }
    }

    /// What a write came to, or that there was no room for it for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.is_waiting = false;
            return written;
        }
        if !self.is_waiting {
            self.is_waiting = true;
            self.due.as_mut().reset(Instant::now() + self.patience);
        }
        ready!(self.due.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other side does not read")))
    }
}

impl AsyncRead for Paced {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, to)
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, parts);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::{sleep, timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(300);

    async fn both() -> (Paced, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Paced::new(socket, PATIENCE), listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn who_does_not_read_is_given_up() {
        let (mut paced, _silent) = both().await;
        let flood = async { while paced.write_all(&[0; 1 << 20]).await.is_ok() {} };
        timeout(PATIENCE * 20, flood).await.expect("it ends");
    }

    #[tokio::test]
    async fn who_reads_slowly_is_not() {
        let (mut paced, mut slow) = both().await;
        let reading = tokio::spawn(async move {
            let (mut buffer, mut read) = (vec![0; 4 << 20], 0);
            while read < 24 << 20 {
                read += slow.read(&mut buffer).await.unwrap();
                sleep(PATIENCE / 30).await;
            }
        });
        let began = Instant::now();
        paced.write_all(&vec![0; 24 << 20]).await.unwrap();
        reading.await.unwrap();
        // A long silence between two writes is none of its business.
        sleep(PATIENCE * 2).await;
        paced.write_all(b"x").await.unwrap();
        assert!(PATIENCE < began.elapsed());
    }
}
