//! What a connection writes in one turn, gathered into one write.
//!
//! h2 hands over every frame of more than 256 bytes apart, and flushes before the next one. Here frames wait in a buffer until the connection's turn is over, or the buffer is full.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What waits at most.
const GATHERED_MAX: usize = 64 * 1024;

/// A socket whose writes wait for [`Gathered::poll_send`].
#[derive(Clone)]
pub(crate) struct Gathered(Arc<Mutex<Shared>>);

struct Shared {
    socket: TcpStream,
    waiting: BytesMut,
}

impl Gathered {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(Shared { socket, waiting: BytesMut::new() })))
    }

    /// Sends what waits. Ready: nothing waits any more.
    ///
    /// # Errors
    /// The other side is gone.
    pub(crate) fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_send(context)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_write(context, &self.waiting)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(sent) => self.waiting.advance(sent),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        // An idle connection holds no buffer.
        self.waiting = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Gathered {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().socket).poll_read(context, into)
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut shared = self.lock();
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        if GATHERED_MAX < shared.waiting.len() + bytes {
            ready!(shared.poll_send(context))?;
        }
        if GATHERED_MAX < bytes {
            return Pin::new(&mut shared.socket).poll_write_vectored(context, slices);
        }
        for slice in slices {
            shared.waiting.extend_from_slice(slice);
        }
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What waits is sent at the end of the turn.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.lock();
        ready!(shared.poll_send(context))?;
        Pin::new(&mut shared.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Gathered, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(listener.accept(), far);
        (Gathered::new(near.unwrap().0), far.unwrap())
    }

    async fn send(gathered: &Gathered) {
        poll_fn(|context| gathered.poll_send(context)).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_written_waits_until_it_is_sent_and_then_goes_at_once() {
        let (mut near, far) = pair().await;
        let mut far = far.into_std().unwrap();
        near.write_all(b"one, ").await.unwrap();
        near.flush().await.unwrap();
        assert_eq!(near.write_vectored(&[IoSlice::new(b"two"), IoSlice::new(b"!")]).await.unwrap(), 4);
        let mut buffer = [0; 64];
        assert_eq!(far.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        send(&near).await;
        assert_eq!(near.lock().waiting.capacity(), 0, "an idle connection holds no buffer");
        far.set_nonblocking(false).unwrap();
        assert_eq!(far.read(&mut buffer).unwrap(), 9);
        assert_eq!(&buffer[..9], b"one, two!");
    }

    #[tokio::test]
    async fn nothing_is_lost_or_turned_round_however_large_the_writes_are() {
        let (mut near, mut far) = pair().await;
        let sizes = [1, 300, GATHERED_MAX, 20_000, GATHERED_MAX + 1, 5, 1 << 20, 40_000, 40_000];
        let sent: Vec<u8> = (0..sizes.iter().sum()).map(|at: usize| (at % 251) as u8).collect();
        let expected = sent.clone();
        let writing = async move {
            let mut rest = &sent[..];
            for size in sizes {
                let (part, others) = rest.split_at(size);
                near.write_all(part).await.unwrap();
                assert!(near.lock().waiting.len() <= GATHERED_MAX);
                rest = others;
            }
            near.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (read, ()) = tokio::join!(far.read_to_end(&mut received), writing);
        read.unwrap();
        assert!(received == expected, "{} bytes of {}", received.len(), expected.len());
    }

    #[tokio::test]
    async fn a_reader_that_stands_still_holds_the_writer_up() {
        let (near, far) = pair().await;
        let part = vec![7; GATHERED_MAX];
        let mut written = 0;
        poll_fn(|context| {
            while Pin::new(&mut near.clone()).poll_write(context, &part).is_ready() {
                written += part.len();
                assert!(written < 1 << 30, "somebody takes everything");
            }
            Poll::Ready(())
        })
        .await;
        assert!(near.lock().waiting.len() <= GATHERED_MAX);
        drop(far);
        assert!(poll_fn(|context| near.poll_send(context)).await.is_err(), "the other side is gone");
    }
}
