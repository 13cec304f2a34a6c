//! Errors, as responses to the client.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A response that says what was expected and what was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub status: StatusCode,
    /// The error's name, for programs.
    code: &'static str,
    /// The message, for people.
    message: String,
}

impl Failure {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// A request with an error.
    pub fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// An error of the service itself. The log has the details; the client does not get them.
    pub fn internal() -> Self {
        let message = "something went wrong in the service; its log says what";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// An overload; the client should try again later.
    pub fn busy(what: &str, max: usize) -> Self {
        let message = format!("expected at most {max} {what} at once, found more");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
    }

    /// A client that has too many connections.
    pub fn too_many(max: u32) -> Self {
        let message = format!("expected at most {max} connections of one client, found more");
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_connections", message)
    }

    /// A request whose head or body takes too long.
    pub fn slow(part: &str, seconds: f64) -> Self {
        let message = format!("expected the request's {part} within {seconds} s, found part of it");
        Self::new(StatusCode::REQUEST_TIMEOUT, "slow_request", message)
    }

    /// Whether the connection ends, because the rest of the request is not received.
    fn closes(&self) -> bool {
        matches!(self.status, StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE)
    }

    fn body(&self) -> String {
        json!({"error": {"code": self.code, "message": self.message}}).to_string()
    }

    /// The whole response in bytes, for a connection that hyper does not serve or no longer serves; it then ends.
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = self.body();
        let retry = if self.retry() { "retry-after: 1\r\n" } else { "" };
        format!(
            "HTTP/1.1 {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{retry}\
             connection: close\r\n\r\n{body}",
            self.status,
            body.len()
        )
        .into_bytes()
    }

    /// Whether the client should try again later.
    fn retry(&self) -> bool {
        matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], self.body())
            .into_response();
        if self.retry() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.closes() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
