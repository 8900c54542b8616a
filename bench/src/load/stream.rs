//! A call whose messages come and go one by one: watches, keep-alives, snapshots, and whatever else is not measured itself.
//!
//! Reading is what grants the server room to send. A [`Call`] that is kept and not read is a client that is stuck.

use bytes::{Buf, Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, StatusCode};
use prost::Message;

use super::client::CallError;
use super::framing::{Malformed, PREFIX_BYTES, Refusal, frame, refusal};

/// The longest message that is taken; the largest that is asked for has 10 MB.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// What a call brings next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Next {
    /// A message, not yet decoded.
    Message(Bytes),
    /// Its end, well or with an error status.
    Ended(Option<Refusal>),
}

/// A call under way. Dropping it cancels it.
#[derive(Debug)]
pub struct Call {
    upload: SendStream<Bytes>,
    download: Download,
    pieces: Pieces,
}

#[derive(Debug)]
enum Download {
    /// Some servers answer only after the first message.
    Awaited(ResponseFuture),
    Open(RecvStream, HeaderMap),
}

impl Call {
    pub(super) fn new(upload: SendStream<Bytes>, response: ResponseFuture) -> Self {
        Self { upload, download: Download::Awaited(response), pieces: Pieces::default() }
    }

    /// Sends a message. It waits in memory while the server grants no room.
    pub fn send(&mut self, message: &impl Message) -> Result<(), CallError> {
        Ok(self.upload.send_data(frame(message), false)?)
    }

    /// Tells that nothing more will be sent.
    pub fn close(&mut self) -> Result<(), CallError> {
        Ok(self.upload.send_data(Bytes::new(), true)?)
    }

    /// Waits for the next message, or the end.
    pub async fn next(&mut self) -> Result<Next, CallError> {
        loop {
            if let Some(message) = self.pieces.take()? {
                return Ok(Next::Message(message));
            }
            let (body, headers) = self.download().await?;
            let Some(chunk) = body.data().await else {
                let trailers = body.trailers().await?;
                // A reply without a body carries its status in the headers.
                let end = refusal(trailers.as_ref().unwrap_or(headers))?;
                self.pieces.check_empty()?;
                return Ok(Next::Ended(end));
            };
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            self.pieces.add(&chunk);
        }
    }

    async fn download(&mut self) -> Result<(&mut RecvStream, &HeaderMap), CallError> {
        if let Download::Awaited(response) = &mut self.download {
            let (parts, body) = response.await?.into_parts();
            if parts.status != StatusCode::OK {
                return Err(CallError::HttpStatus(parts.status));
            }
            self.download = Download::Open(body, parts.headers);
        }
        match &mut self.download {
            Download::Open(body, headers) => Ok((body, headers)),
            Download::Awaited(_) => unreachable!("it was opened above"),
        }
    }
}

/// Messages as they are put together from chunks.
#[derive(Debug, Default)]
struct Pieces {
    bytes: BytesMut,
}

impl Pieces {
    fn add(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
    }

    /// The first message, if it is whole.
    fn take(&mut self) -> Result<Option<Bytes>, Malformed> {
        let Some((prefix, rest)) = self.bytes.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let [compressed, length @ ..] = *prefix;
        if compressed != 0 {
            return Err(Malformed::Compressed(compressed));
        }
        let length = u32::from_be_bytes(length) as usize;
        if MESSAGE_BYTES_MAX < length {
            return Err(Malformed::Endless(MESSAGE_BYTES_MAX));
        }
        if rest.len() < length {
            let missing = length - rest.len();
            self.bytes.reserve(missing);
            return Ok(None);
        }
        self.bytes.advance(PREFIX_BYTES);
        Ok(Some(self.bytes.split_to(length).freeze()))
    }

    /// Nothing may be left of a message at the end.
    fn check_empty(&self) -> Result<(), Malformed> {
        if self.bytes.is_empty() { Ok(()) } else { Err(Malformed::Short(self.bytes.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let sent = [0, 0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9];
        for cut in 0..=sent.len() {
            let (mut pieces, mut taken) = (Pieces::default(), Vec::new());
            for chunk in [&sent[..cut], &sent[cut..]] {
                pieces.add(chunk);
                while let Some(message) = pieces.take().expect("well-formed") {
                    taken.push(message.to_vec());
                }
            }
            assert_eq!(taken, [vec![7, 8], vec![], vec![9]], "cut at {cut}");
            assert_eq!(pieces.check_empty(), Ok(()));
        }
    }

    #[test]
    fn a_message_cut_off_is_malformed() {
        let mut pieces = Pieces::default();
        pieces.add(&[0, 0, 0, 0, 2, 7]);
        assert_eq!(pieces.take(), Ok(None));
        assert_eq!(pieces.check_empty(), Err(Malformed::Short(6)));
    }

    #[test]
    fn compressed_and_endless_messages_are_refused() {
        let take = |bytes: &[u8]| {
            let mut pieces = Pieces::default();
            pieces.add(bytes);
            pieces.take()
        };
        assert_eq!(take(&[1, 0, 0, 0, 0]), Err(Malformed::Compressed(1)));
        assert_eq!(take(&[0, 255, 0, 0, 0]), Err(Malformed::Endless(MESSAGE_BYTES_MAX)));
    }
}
