//! What an error of the object storage is for a person.

use crate::spec::error::StageError;
use object_store::Error as StoreError;
use std::error::Error;

/// Characters shown of an answer that nobody knows.
const SHOWN: usize = 300;

/// Whether somebody else was first.
pub fn is_conflict(error: &StoreError) -> bool {
    matches!(error, StoreError::AlreadyExists { .. } | StoreError::Precondition { .. })
}

/// Whether the request may come through when it is sent again: no answer came, or none that means anything.
pub fn is_passing(error: &StoreError) -> bool {
    matches!(error, StoreError::Generic { .. }) && network(error).is_some()
}

/// The error with what to do. `store` is what people call it, `server` where it is.
pub fn explained(store: &str, server: &str, error: StoreError) -> StageError {
    let text = error.to_string();
    let (what, help) = match code(&text) {
        Some("NoSuchBucket") => (
            format!("{server} has no such bucket"),
            "Create the bucket, or name another one in `store`.".to_owned(),
        ),
        Some(code @ ("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken")) => (
            format!("{server} does not accept the credentials ({code})"),
            "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN).".to_owned(),
        ),
        Some(code) if is_denied(&error) => (
            format!("{server} does not allow it ({code})"),
            "The credentials must be allowed to list, get, put and delete objects of the bucket.".to_owned(),
        ),
        Some(code) => (format!("{server} answers {code}"), "Then run the same command again.".to_owned()),
        None if text.contains("instance metadata") || text.contains("169.254.") => (
            "there are no credentials, and this machine has none of its own".to_owned(),
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.".to_owned(),
        ),
        None => (
            network(&error).map_or_else(
                || text.chars().take(SHOWN).collect(),
                |reason| format!("{server} cannot be reached: {reason}"),
            ),
            "Check the network and AWS_ENDPOINT_URL; then run the same command again: what is finished is kept."
                .to_owned(),
        ),
    };
    StageError::new(format!("{store}: {what}")).help(help).because(error)
}

fn is_denied(error: &StoreError) -> bool {
    matches!(error, StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. })
}

/// The server's own word for what is wrong.
fn code(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<Code>")?;
    rest.split_once("</Code>").map(|(code, _)| code)
}

/// Why nothing was answered: the innermost cause.
fn network(error: &StoreError) -> Option<String> {
    let mut is_network = false;
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        is_network |= inner.is::<object_store::client::HttpError>();
        cause = inner;
    }
    is_network.then(|| cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(error: StoreError) -> String {
        let error = explained("s3://b/p", "https://minio.example", error);
        format!("{error}. {}", error.advice().unwrap_or_default())
    }

    #[test]
    fn what_a_server_answers_is_said_in_words() {
        let answer = |code: &str| {
            let xml = format!("status code: 404: <Error><Code>{code}</Code><Message>x</Message></Error>");
            StoreError::NotFound { path: "a".to_owned(), source: xml.into() }
        };
        insta::assert_snapshot!(message(answer("NoSuchBucket")), @"s3://b/p: https://minio.example has no such bucket. Create the bucket, or name another one in `store`.");
        assert!(message(answer("InvalidAccessKeyId")).contains("does not accept the credentials"));
        let denied = "403: <Error><Code>AccessDenied</Code></Error>".into();
        let denied = StoreError::PermissionDenied { path: "a".to_owned(), source: denied };
        assert!(message(denied).contains("does not allow it (AccessDenied)"));
        let http = object_store::client::HttpError::new(
            object_store::client::HttpErrorKind::Connect,
            std::io::Error::other("connection refused"),
        );
        let refused = StoreError::Generic { store: "S3", source: Box::new(http) };
        assert!(message(refused).contains("cannot be reached: connection refused"));
    }
}
