//! What is answered where there is no answer: `{"error": {"message", "type", "param", "code"}}` and a status, as OpenAI has it.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use llavm_model::generate::GenerateError;
use llavm_model::generate::batch::Refused;
use llavm_model::processor::PromptError;
use serde_json::{Value, json};

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// OpenAI's name of the kind.
    pub kind: &'static str,
    /// OpenAI's name of the reason where it has one, otherwise our own.
    pub code: &'static str,
    /// In words.
    pub message: String,
    /// The field that is to blame.
    pub param: Option<&'static str>,
    /// A header that the status asks for.
    header: Option<(&'static str, &'static str)>,
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";
const AGAIN: Option<(&str, &str)> = Some(("retry-after", "1"));

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code, message: message.into(), param: None, header: None }
    }

    /// The request cannot be answered as it is.
    pub fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, code, message)
    }

    /// As [`ApiError::invalid`], because of one field.
    pub fn field(param: &'static str, message: impl Into<String>) -> Self {
        Self::invalid("invalid_value", message).because_of(param)
    }

    /// With the field that is to blame.
    #[must_use]
    pub fn because_of(self, param: &'static str) -> Self {
        Self { param: Some(param), ..self }
    }

    /// No key, or a wrong one.
    pub fn unauthorized() -> Self {
        let message = "this server asks for an API key: send `Authorization: Bearer KEY`";
        let header = Some(("www-authenticate", "Bearer"));
        Self { header, ..Self::new(StatusCode::UNAUTHORIZED, INVALID, "invalid_api_key", message) }
    }

    /// There is no such thing.
    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, INVALID, code, message)
    }

    /// The thing is there, the method is not; the router adds which are.
    pub fn method() -> Self {
        let message = "this address does not take that method; the header Allow lists those it takes";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, "method_not_allowed", message)
    }

    /// The head of a request is too large.
    pub fn large_head() -> Self {
        Self::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            INVALID,
            "head_too_large",
            "the request has too many or too large headers",
        )
    }

    /// The body did not arrive in time.
    pub fn slow() -> Self {
        let message = "the request did not arrive in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, INVALID, "request_timeout", message)
    }

    /// The body broke off, or is not framed as it should be.
    pub fn incomplete(cause: &impl std::fmt::Display) -> Self {
        Self::invalid("incomplete_request", format!("the request's body is not whole: {cause}"))
    }

    /// The body is too large.
    pub fn too_large(most: usize) -> Self {
        let message = format!("the request has more than {most} bytes; see --max-body-mib");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, "request_too_large", message)
    }

    /// Not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { header: AGAIN, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, "overloaded", message) }
    }

    /// A fault of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, "internal_error", message)
    }

    /// The bytes of a response behind which the connection ends.
    pub fn last_words(&self) -> Vec<u8> {
        let body = self.body().to_string();
        let (status, length) = (self.status, body.len());
        let header =
            self.header.as_ref().map_or(String::new(), |(name, value)| format!("{name}: {value}\r\n"));
        let head = "content-type: application/json\r\nconnection: close\r\n";
        format!("HTTP/1.1 {status}\r\n{head}{header}content-length: {length}\r\n\r\n{body}").into_bytes()
    }

    /// As JSON.
    pub fn body(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        response
    }
}

impl From<PromptError> for ApiError {
    fn from(error: PromptError) -> Self {
        Self::invalid(error.code(), error.to_string()).because_of("messages")
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::Full { .. } => Self {
                header: AGAIN,
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "rate_limit_exceeded", message)
            },
            Refused::TooLong { .. } => {
                Self::invalid("context_length_exceeded", message).because_of("messages")
            }
            Refused::Closed => Self::unavailable(message),
        }
    }
}

impl From<GenerateError> for ApiError {
    fn from(error: GenerateError) -> Self {
        let message = error.to_string();
        match error {
            GenerateError::TooLong { .. } => Self::invalid("context_length_exceeded", message),
            GenerateError::Empty | GenerateError::Batch(_) | GenerateError::Sampling(_) => {
                Self::invalid("invalid_value", message)
            }
            GenerateError::Stopped => Self::unavailable(message),
            GenerateError::Device(_) | GenerateError::Tokenizer(_) => Self::internal(message),
        }
    }
}
