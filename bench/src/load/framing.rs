//! gRPC's own layer above HTTP/2: five bytes in front of a message, and a status in the trailers.
//!
//! Only what unary calls without compression need, which is all that the generator sends. What a server sends back is
//! never trusted: everything that is not exactly one message and one status is [`Malformed`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use prost::Message;

/// Length of the prefix: a compression flag and the message's length in four bytes, big end first.
pub const PREFIX_BYTES: usize = 5;

/// A reply that does not follow the protocol.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// Not even a whole prefix.
    #[error("the reply ends after {0} bytes, inside the message prefix")]
    Short(usize),
    /// Compressed, although no compression was offered.
    #[error("the reply is compressed (flag {0}), which was not offered")]
    Compressed(u8),
    /// The prefix announces another length than what follows it.
    #[error("the reply announces {announced} bytes and carries {carried}")]
    Length {
        /// What the prefix says.
        announced: usize,
        /// What follows the prefix.
        carried: usize,
    },
    /// More bytes than any reply to the generator's requests can have.
    #[error("the reply has more than {0} bytes")]
    Endless(usize),
    /// Neither trailers nor headers carry a readable `grpc-status`.
    #[error("the reply carries no readable grpc-status")]
    NoStatus,
}

/// An error status that a server answered with.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("status {code}: {message}")]
pub struct Refusal {
    /// gRPC's status code, never 0.
    pub code: u32,
    /// The text beside it, as it came.
    pub message: String,
}

/// The message with its prefix, ready to be sent.
pub fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).expect("a request of the generator is far below 4 GiB"));
    message.encode(&mut framed).expect("the buffer grows as needed");
    framed.freeze()
}

/// The one message of a unary reply, without its prefix.
pub fn unframe(mut body: Bytes) -> Result<Bytes, Malformed> {
    if body.len() < PREFIX_BYTES {
        return Err(Malformed::Short(body.len()));
    }
    let compressed = body.get_u8();
    if compressed != 0 {
        return Err(Malformed::Compressed(compressed));
    }
    let announced = body.get_u32() as usize;
    if announced != body.len() {
        return Err(Malformed::Length { announced, carried: body.len() });
    }
    Ok(body)
}

/// What the status says: nothing if all is well.
pub fn refusal(trailers: &HeaderMap) -> Result<Option<Refusal>, Malformed> {
    let status = trailers.get("grpc-status").ok_or(Malformed::NoStatus)?;
    if status.as_bytes() == b"0" {
        return Ok(None);
    }
    let code = status.to_str().ok().and_then(|code| code.parse().ok()).ok_or(Malformed::NoStatus)?;
    let message = trailers
        .get("grpc-message")
        .map_or_else(String::new, |message| String::from_utf8_lossy(message.as_bytes()).into_owned());
    Ok(Some(Refusal { code, message }))
}

#[cfg(test)]
mod tests {
    use detcd_proto::etcdserverpb::PutRequest;
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_framed_message_comes_back_whole() {
        let request =
            PutRequest { key: b"k".as_slice().into(), value: vec![7_u8; 300].into(), ..PutRequest::default() };
        let framed = frame(&request);
        assert_eq!(framed[0], 0);
        assert_eq!(framed.len(), PREFIX_BYTES + request.encoded_len());
        let message = unframe(framed).expect("framed by us");
        assert_eq!(PutRequest::decode(message).expect("encoded by us"), request);
    }

    #[test]
    fn an_empty_message_is_a_message() {
        assert_eq!(unframe(Bytes::from_static(&[0, 0, 0, 0, 0])), Ok(Bytes::new()));
    }

    #[test]
    fn whatever_is_not_one_plain_message_is_malformed() {
        assert_eq!(unframe(Bytes::new()), Err(Malformed::Short(0)));
        assert_eq!(unframe(Bytes::from_static(&[0, 0, 0, 0])), Err(Malformed::Short(4)));
        assert_eq!(unframe(Bytes::from_static(&[1, 0, 0, 0, 0])), Err(Malformed::Compressed(1)));
        let shorter = unframe(Bytes::from_static(&[0, 0, 0, 0, 2, 9]));
        assert_eq!(shorter, Err(Malformed::Length { announced: 2, carried: 1 }));
        let longer = unframe(Bytes::from_static(&[0, 0, 0, 0, 1, 9, 9]));
        assert_eq!(longer, Err(Malformed::Length { announced: 1, carried: 2 }));
    }

    #[test]
    fn the_status_is_read_from_the_trailers() {
        let mut trailers = HeaderMap::new();
        assert_eq!(refusal(&trailers), Err(Malformed::NoStatus));
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(refusal(&trailers), Ok(None));
        trailers.insert("grpc-status", HeaderValue::from_static("8"));
        trailers.insert("grpc-message", HeaderValue::from_static("etcdserver: too many requests"));
        let expected = Refusal { code: 8, message: "etcdserver: too many requests".to_owned() };
        assert_eq!(refusal(&trailers), Ok(Some(expected)));
        trailers.insert("grpc-status", HeaderValue::from_static("eight"));
        assert_eq!(refusal(&trailers), Err(Malformed::NoStatus));
    }
}
