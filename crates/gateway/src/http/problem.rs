//! A refusal as HTTP prints it: RFC 9457 problem JSON with our code, and what was applied.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tombolo_codec::{Reject, RejectCode};

/// Source: RFC 9457, section 3; `code`, `applied`, `retry_after_ms` and `stamp_needed` are extension members.
#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: String,
    status: u16,
    detail: &'a str,
    code: &'static str,
    applied: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stamp_needed: Option<String>,
}

/// A refusal on its way out.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    reject: Reject,
}

impl Problem {
    /// With a status that says more than the code's own.
    pub(super) fn with_status(status: StatusCode, reject: Reject) -> Self {
        Self { status, reject }
    }

    pub(super) fn malformed(text: impl Into<String>) -> Self {
        Reject::new(RejectCode::Malformed, text).into()
    }

    pub(super) fn not_supported(text: impl Into<String>) -> Self {
        Reject::new(RejectCode::NotSupported, text).into()
    }
}

impl From<Reject> for Problem {
    fn from(reject: Reject) -> Self {
        let status = StatusCode::from_u16(reject.code.http()).expect("every code has a valid status");
        Self { status, reject }
    }
}

impl From<Problem> for Reject {
    fn from(problem: Problem) -> Self {
        problem.reject
    }
}

/// `not_yet` → `Not yet`.
fn title(code: RejectCode) -> String {
    let mut title = code.name().replace('_', " ");
    title[..1].make_ascii_uppercase();
    title
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, reject } = self;
        let code = reject.code;
        let body = Body {
            r#type: format!("urn:tombolo:problem:{}", code.name()),
            title: title(code),
            status: status.as_u16(),
            detail: &reject.text,
            code: code.name(),
            applied: reject.applied.name(),
            retry_after_ms: reject.retry_after_ms,
            stamp_needed: reject.stamp_needed.map(|stamp| stamp.to_string()),
        };
        let json = serde_json::to_vec(&body).expect("a problem is plain JSON");
        let mut response = (status, json).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(ms) = reject.retry_after_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000)));
        }
        if code == RejectCode::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // For whoever counts the answers.
        response.extensions_mut().insert(code);
        response
    }
}
