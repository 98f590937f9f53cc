//! Errors as JSON.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A request that is not answered, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    status: StatusCode,
    error: String,
}

impl Failure {
    pub(super) fn not_found(error: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, error: error.into() }
    }

    pub(super) fn bad_request(error: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error }
    }

    pub(super) fn unavailable(error: &dyn std::fmt::Display) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, error: error.to_string() }
    }

    pub(super) fn method_not_allowed() -> Self {
        let error = "this page does not take that method; GET / says what each takes".to_owned();
        Self { status: StatusCode::METHOD_NOT_ALLOWED, error }
    }

    pub(super) fn unauthorized() -> Self {
        let error = "this page needs the password, as `Authorization: Bearer PASSWORD` or Basic";
        Self { status: StatusCode::UNAUTHORIZED, error: error.to_owned() }
    }

    pub(super) fn forbidden(error: &str) -> Self {
        Self { status: StatusCode::FORBIDDEN, error: error.to_owned() }
    }

    pub(super) fn internal(error: &dyn std::fmt::Display) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, error: error.to_string() }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.error }))).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"larder\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
