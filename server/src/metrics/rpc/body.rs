//! Bodies that count the messages in them as they pass.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};

use super::{BidiStream, Call, METHODS, OK, Rpcs, code, count};

/// One byte that says whether a message is compressed, and four for its length.
const HEAD_BYTES: usize = 5;

/// The place in a stream of messages.
#[derive(Debug, Default)]
pub(super) struct Messages {
    head: [u8; HEAD_BYTES],
    held: usize,
    /// What is still to come of the message under way.
    left: usize,
}

impl Messages {
    /// Takes in the next bytes, and tells the length of each message that begins in them.
    pub(super) fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(u64)) {
        while !bytes.is_empty() {
            let passed = self.left.min(bytes.len());
            self.left -= passed;
            bytes = &bytes[passed..];
            let taken = (HEAD_BYTES - self.held).min(bytes.len());
            self.head[self.held..self.held + taken].copy_from_slice(&bytes[..taken]);
            self.held += taken;
            bytes = &bytes[taken..];
            if self.held == HEAD_BYTES {
                let [_, a, b, c, d] = self.head;
                let length = u32::from_be_bytes([a, b, c, d]);
                self.held = 0;
                self.left = length as usize;
                each(u64::from(length));
            }
        }
    }
}

/// What a client sends.
pub(super) struct CountedRequest {
    body: Body,
    messages: Messages,
    rpcs: Arc<Rpcs>,
    method: usize,
}

impl CountedRequest {
    pub(super) fn new(body: Body, rpcs: Arc<Rpcs>, method: usize) -> Self {
        Self { body, messages: Messages::default(), rpcs, method }
    }
}

impl HttpBody for CountedRequest {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            let rpcs = &this.rpcs;
            this.messages.take(bytes, |length| {
                count(&rpcs.methods[this.method].received, 1);
                count(&rpcs.received_bytes, length);
            });
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for CountedRequest {
    fn drop(&mut self) {
        // etcd counts the look that finds the end of such a stream.
        if METHODS[self.method].1 == BidiStream {
            count(&self.rpcs.methods[self.method].received, 1);
        }
    }
}

/// What it gets.
pub(super) struct CountedResponse {
    body: Body,
    messages: Messages,
    call: Call,
}

impl CountedResponse {
    pub(super) fn new(body: Body, call: Call) -> Self {
        Self { body, messages: Messages::default(), call }
    }
}

impl HttpBody for CountedResponse {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    this.messages.take(bytes, |length| this.call.on_sent(length));
                } else if let Some(code) = frame.trailers_ref().and_then(code) {
                    this.call.end(code);
                }
            }
            // Its own end would have been told by trailers.
            Some(Err(_)) => {}
            None => this.call.end(OK),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
