//! The body of an answer in pieces.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, HeaderValue, Response};
use detcd_server::pieces::Pieces;
use http_body::Frame;

/// Sends the pieces that a response carries in place of its message.
pub(crate) fn in_pieces(mut response: Response<Body>) -> Response<Body> {
    let Some(pieces) = response.extensions_mut().remove::<Pieces>() else { return response };
    response.map(|_| Body::new(Piecewise { pieces, rests: false, has_ended: false }))
}

struct Piecewise {
    pieces: Pieces,
    /// Others have their turn before the next piece.
    rests: bool,
    has_ended: bool,
}

impl HttpBody for Piecewise {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if std::mem::take(&mut self.rests) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(piece) = self.pieces.next() {
            self.rests = true;
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if std::mem::replace(&mut self.has_ended, true) {
            return Poll::Ready(None);
        }
        let fine = HeaderMap::from_iter([(tonic::Status::GRPC_STATUS, HeaderValue::from_static("0"))]);
        Poll::Ready(Some(Ok(Frame::trailers(fine))))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }
}

#[cfg(test)]
mod tests {
    use detcd_proto::etcdserverpb::RangeResponse;
    use detcd_proto::mvccpb::KeyValue;
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_body_is_the_pieces_and_then_the_status() {
        let pair = KeyValue { value: vec![b'v'; 50_000].into(), ..KeyValue::default() };
        let mut large = RangeResponse { kvs: vec![pair; 9], count: 9, ..RangeResponse::default() };
        let pieces = Pieces::of(&mut large).expect("it is large");
        let mut response = Response::new(Body::from("what stands for it"));
        response.extensions_mut().insert(pieces);
        let mut body = in_pieces(response).into_body();
        let (mut pieces, mut bytes) = (0, 0);
        let trailers = loop {
            match body.frame().await.expect("no end before the status").expect("nothing fails").into_data() {
                Ok(data) => (pieces, bytes) = (pieces + 1, bytes + data.len()),
                Err(frame) => break frame.into_trailers().expect("all else is the status"),
            }
        };
        assert_eq!(trailers.get("grpc-status").map(HeaderValue::as_bytes), Some(&b"0"[..]));
        assert!(5 == pieces && 9 * 50_000 < bytes, "{pieces} pieces of {bytes} bytes");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn any_other_response_stays_what_it_is() {
        let body = in_pieces(Response::new(Body::from("small"))).into_body();
        assert_eq!(body.collect().await.expect("a body").to_bytes(), "small");
    }
}
