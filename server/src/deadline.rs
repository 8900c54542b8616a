//! How long a client of gRPC still waits, as it says in `grpc-timeout`: what takes longer is given up.
//!
//! Source: gRPC over HTTP/2, "Requests": up to eight digits and a unit.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::Response;
use axum::middleware::Next;

const HEADER: &str = "grpc-timeout";
const DIGITS_MAX: usize = 8;

/// Answers within the client's time, or tells it that this is over.
pub(crate) async fn within(request: Request, next: Next) -> Response<Body> {
    let Some(patience) = request.headers().get(HEADER) else { return next.run(request).await };
    let Some(patience) = patience.to_str().ok().and_then(parse) else {
        let text = format!("malformed grpc-timeout: {}", String::from_utf8_lossy(patience.as_bytes()));
        return tonic::Status::internal(text).into_http();
    };
    match tokio::time::timeout(patience, next.run(request)).await {
        Ok(response) => response,
        Err(_) => tonic::Status::deadline_exceeded("context deadline exceeded").into_http(),
    }
}

fn parse(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || DIGITS_MAX < digits.len() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(count * 3_600)),
        'M' => Some(Duration::from_secs(count * 60)),
        'S' => Some(Duration::from_secs(count)),
        'm' => Some(Duration::from_millis(count)),
        'u' => Some(Duration::from_micros(count)),
        'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::any;
    use tower::ServiceExt as _;

    use super::*;

    /// What a handler that takes two seconds answers to a client that waits as long as it says.
    async fn status(patience: &str) -> Option<String> {
        let slow = any(async || tokio::time::sleep(Duration::from_secs(2)).await);
        let router = Router::new().route("/", slow).layer(axum::middleware::from_fn(within));
        let request = Request::builder().uri("/").header(HEADER, patience).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        response.headers().get("grpc-status").map(|code| code.to_str().unwrap().to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told() {
        assert_eq!(status("1999m").await.as_deref(), Some("4"));
        assert_eq!(status("2001m").await, None);
        assert_eq!(status("soon").await.as_deref(), Some("13"));
    }

    #[test]
    fn eight_digits_and_a_unit() {
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!(parse("3M"), Some(Duration::from_secs(180)));
        assert_eq!(parse("20S"), Some(Duration::from_secs(20)));
        assert_eq!(parse("4999m"), Some(Duration::from_millis(4_999)));
        assert_eq!(parse("0u"), Some(Duration::ZERO));
        assert_eq!(parse("7n"), Some(Duration::from_nanos(7)));
        for malformed in ["", "S", "5", "+5S", "123456789S", "5s", "5 S", "é"] {
            assert_eq!(parse(malformed), None, "{malformed:?}");
        }
    }
}
