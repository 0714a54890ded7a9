//! What comes instead of an answer of the hub.

use std::fmt;
use std::time::Duration;
use ureq::Body;
use ureq::http::Response;

/// What came instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// A status that is no success.
    Status {
        /// Such as 404.
        status: u16,
        /// What the hub calls it, such as `GatedRepo`.
        code: Option<String>,
        /// What the hub says about it.
        message: Option<String>,
        /// The pause that the server asks for.
        pause: Option<Duration>,
    },
    /// No connection, or one that broke off.
    Network {
        /// Such as `huggingface.co`.
        host: String,
        /// What happened.
        why: String,
    },
    /// A file ended before its last byte.
    Cut {
        /// Bytes that arrived, and bytes of the whole file.
        at: (u64, u64),
    },
    /// The request was sent on and on, or to an address that is none.
    Redirect {
        /// The last address.
        address: String,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { status, message, .. } => {
                let meaning = match status {
                    401 => "not allowed without a valid token, or not there",
                    403 => "access is denied",
                    404 => "there is no such repository, revision or file",
                    429 => "too many requests",
                    500.. => "the server has a problem",
                    _ => "the server refuses",
                };
                write!(f, "{meaning} (status {status}")?;
                message.as_ref().map_or(Ok(()), |message| write!(f, ": {message}"))?;
                f.write_str(")")
            }
            Self::Network { host, why } => write!(f, "{host} cannot be reached: {why}"),
            Self::Cut { at: (have, size) } => {
                write!(f, "the connection was cut after {have} of {size} bytes")
            }
            Self::Redirect { address } => write!(f, "redirected too often or nowhere, last to {address}"),
        }
    }
}

impl Trouble {
    /// Whether the same request may succeed a little later.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::Network { .. } | Self::Cut { .. } => true,
            Self::Redirect { .. } => false,
        }
    }

    /// What a status that is no success says.
    pub(super) fn of_status(response: &Response<Body>) -> Self {
        let text = |name: &str| header(response, name).map(str::to_owned);
        Self::Status {
            status: response.status().as_u16(),
            code: text("x-error-code"),
            message: text("x-error-message"),
            pause: asked_pause(response),
        }
    }
}

/// The text of a header.
pub fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// `Retry-After: 30`, or the hub's `RateLimit: "api";r=0;t=30`.
fn asked_pause(response: &Response<Body>) -> Option<Duration> {
    let limit = || header(response, "ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t="));
    let seconds = header(response, "retry-after").or_else(limit)?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
