//! Which server, and who asks: from the environment variables that other programs for S3 read too.

use crate::spec::error::StageError;
use crate::store::place::{ENDPOINT, Place};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use std::collections::BTreeMap;
use std::env;
use std::time::Duration;

/// As [`ENDPOINT`], for S3 alone.
const S3_ENDPOINT: &str = "AWS_ENDPOINT_URL_S3";
const ALLOW_HTTP: &str = "AWS_ALLOW_HTTP";
const ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";

/// Other ways to come by credentials.
const OTHERS: [&str; 4] = [
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
];

/// How long a server may take to be connected to, and a request with all its bytes.
const CONNECT: Duration = Duration::from_secs(10);
const REQUEST: Duration = Duration::from_mins(2);

/// A request that fails for a passing reason is sent again so often, and no longer than this.
const TRIES: usize = 8;
const TRY_FOR: Duration = Duration::from_mins(2);

/// Who asks which server.
#[derive(Clone)]
pub struct Account {
    variables: BTreeMap<String, String>,
}

impl Account {
    /// What the environment says.
    pub fn of_environment() -> Result<Self, StageError> {
        let known = env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with("AWS_"))?;
            Some((name, value.into_string().ok()?))
        });
        Self::new(known.collect())
    }

    /// What these variables say.
    pub fn new(variables: BTreeMap<String, String>) -> Result<Self, StageError> {
        let account = Self { variables };
        account.check_credentials()?;
        account.check_endpoint()?;
        Ok(account)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Where the server is; `None` for Amazon's.
    pub fn endpoint(&self) -> Option<&str> {
        self.get(S3_ENDPOINT).or_else(|| self.get(ENDPOINT))
    }

    /// What people know the server by.
    pub fn server(&self) -> String {
        self.endpoint().map_or_else(|| "Amazon S3".to_owned(), str::to_owned)
    }

    fn check_credentials(&self) -> Result<(), StageError> {
        let help = format!("Set {ID} and {SECRET} (and AWS_SESSION_TOKEN, where there is one).");
        let half = match (self.get(ID), self.get(SECRET)) {
            (Some(_), Some(_)) => return Ok(()),
            (None, None) => None,
            (None, Some(_)) => Some(ID),
            (Some(_), None) => Some(SECRET),
        };
        if let Some(missing) = half {
            return Err(StageError::new(format!("{missing} is not set")).help(help));
        }
        // A machine at Amazon may have credentials of its own.
        let may_have = self.endpoint().is_none() && self.get("AWS_EC2_METADATA_DISABLED") != Some("true");
        if may_have || OTHERS.iter().any(|name| self.get(name).is_some()) {
            return Ok(());
        }
        Err(StageError::new("there are no credentials for the object storage").help(help))
    }

    fn check_endpoint(&self) -> Result<(), StageError> {
        let Some(endpoint) = self.endpoint() else { return Ok(()) };
        let allowed = self.get(ALLOW_HTTP).is_some_and(|value| matches!(value, "1" | "true" | "yes"));
        if endpoint.starts_with("https://") || endpoint.starts_with("http://") && allowed {
            return Ok(());
        }
        if endpoint.starts_with("http://") {
            let text = format!("{endpoint} is not encrypted");
            return Err(StageError::new(text).help(format!(
                "Use an address that begins with https://, or set {ALLOW_HTTP}=true where the network is your own."
            )));
        }
        let text = format!("{ENDPOINT} is `{endpoint}`, which is no address");
        Err(StageError::new(text).help("It begins with https:// or http://."))
    }

    /// Requests to a bucket.
    pub fn connect(&self, place: &Place) -> Result<AmazonS3, object_store::Error> {
        // Another caller may have chosen one already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = ClientOptions::new().with_connect_timeout(CONNECT).with_timeout(REQUEST);
        let retry =
            RetryConfig { backoff: BackoffConfig::default(), max_retries: TRIES, retry_timeout: TRY_FOR };
        let mut builder = AmazonS3Builder::new().with_client_options(options);
        for (name, value) in &self.variables {
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        builder.with_bucket_name(&place.bucket).with_retry(retry).build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(variables: &[(&str, &str)]) -> String {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Account::new(variables.collect())
            .err()
            .map_or_else(String::new, |error| format!("{error}. {}", error.advice().unwrap_or_default()))
    }

    #[test]
    fn missing_credentials_and_addresses_that_cannot_be_are_refused_with_what_to_do() {
        let (id, secret) = ((ID, "a"), (SECRET, "b"));
        let elsewhere = (ENDPOINT, "https://minio.example");
        assert!(error(&[elsewhere]).contains("there are no credentials"));
        assert!(error(&[elsewhere]).contains("Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
        assert!(error(&[id]).starts_with("AWS_SECRET_ACCESS_KEY is not set"));
        assert!(error(&[secret]).starts_with("AWS_ACCESS_KEY_ID is not set"));
        assert!(error(&[id, secret, (ENDPOINT, "http://minio")]).contains("AWS_ALLOW_HTTP=true"));
        assert!(error(&[id, secret, (ENDPOINT, "minio:9000")]).contains("which is no address"));
        for fine in [
            vec![id, secret],
            vec![],
            vec![id, secret, elsewhere],
            vec![id, secret, (ENDPOINT, "http://minio"), (ALLOW_HTTP, "true")],
            vec![elsewhere, ("AWS_SKIP_SIGNATURE", "true")],
        ] {
            assert_eq!(error(&fine), "", "{fine:?}");
        }
    }
}
