//! Requests to the hub: redirects followed by hand, the token only for the hub itself, failures that pass tried again.

use super::fetch_error::FetchError;
use super::settings::{Settings, Token};
use super::source::Source;
use super::trouble::{Trouble, header};
use std::io;
use std::ops::Range;
use std::time::Duration;
use ureq::config::ConfigBuilder;
use ureq::http::{Response, Uri};
use ureq::tls::TlsConfig;
use ureq::typestate::AgentScope;
use ureq::{Agent, Body};

/// Redirects in a row that are followed.
const REDIRECTS: usize = 10;
/// The longest pause that a server may ask for. The hub's limits count over five minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(330);

/// Sends requests.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    home: Origin,
    source: Source,
    token: Option<Token>,
    attempts: u32,
    pause: Duration,
}

/// Scheme, host and port of an address. The token belongs to one of them.
#[derive(Debug, PartialEq, Eq)]
struct Origin(String, String, u16);

impl Origin {
    fn of(address: &Uri) -> Option<Self> {
        let scheme = address.scheme_str()?.to_ascii_lowercase();
        let port = address.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        Some(Self(scheme, address.host()?.to_ascii_lowercase(), port))
    }
}

/// What all requests have in common: the answer is judged and redirects are followed here, and a body is what was sent.
pub(super) fn config(tls: TlsConfig) -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("llavm/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .tls_config(tls)
}

impl Client {
    /// A client for the source where `settings` say it is.
    pub fn new(settings: &Settings, source: Source, tls: TlsConfig) -> Result<Self, FetchError> {
        let site = settings.site(source);
        let home = site.endpoint.parse::<Uri>().ok().and_then(|address| Origin::of(&address));
        let home = home.filter(|home| home.0 == "https" || home.0 == "http").ok_or_else(|| {
            FetchError::Endpoint { variable: source.variables().endpoint, endpoint: site.endpoint.clone() }
        })?;
        let config = config(tls)
            .proxy(settings.proxy.clone())
            .timeout_connect(Some(settings.silence))
            .timeout_recv_response(Some(settings.silence * 2))
            .timeout_per_read(Some(settings.silence))
            .build();
        Ok(Self {
            agent: config.new_agent(),
            home,
            source,
            token: site.token.clone(),
            attempts: settings.attempts,
            pause: settings.pause,
        })
    }

    /// The answer to `GET address` from byte `from` on, after redirects.
    pub fn get(&self, address: &str, from: u64) -> Result<Response<Body>, Trouble> {
        self.follow(
            address,
            |_| false,
            |agent, address| {
                let request = agent.get(address);
                if from == 0 { request } else { request.header("Range", format!("bytes={from}-")) }
            },
        )
    }

    /// The answer to `GET address` for some of its bytes, after redirects, and the address that gave it.
    pub fn get_range(&self, address: &str, range: &Range<u64>) -> Result<(Response<Body>, String), Trouble> {
        let wanted = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        self.follow_to(address, |_| false, |agent, address| agent.get(address).header("Range", &wanted))
    }

    /// The headers of `address`, of the first server that says what file this is.
    pub fn head(&self, address: &str) -> Result<Response<Body>, Trouble> {
        let reported = |response: &Response<Body>| header(response, "x-linked-etag").is_some();
        self.follow(address, reported, |agent, address| agent.head(address))
    }

    fn follow(
        &self,
        address: &str,
        enough: impl Fn(&Response<Body>) -> bool,
        request: impl Fn(&Agent, &Uri) -> ureq::RequestBuilder<ureq::typestate::WithoutBody>,
    ) -> Result<Response<Body>, Trouble> {
        self.follow_to(address, enough, request).map(|(response, _)| response)
    }

    fn follow_to(
        &self,
        address: &str,
        enough: impl Fn(&Response<Body>) -> bool,
        request: impl Fn(&Agent, &Uri) -> ureq::RequestBuilder<ureq::typestate::WithoutBody>,
    ) -> Result<(Response<Body>, String), Trouble> {
        let nowhere = |address: &str| Trouble::Redirect { address: address.to_owned() };
        let mut next: Uri = address.parse().map_err(|_| nowhere(address))?;
        for _ in 0..=REDIRECTS {
            let mut request = request(&self.agent, &next);
            if let Some(token) =
                self.token.as_ref().filter(|_| Origin::of(&next).as_ref() == Some(&self.home))
            {
                request = request.header("Authorization", format!("Bearer {}", token.secret));
                if self.source == Source::ModelScope {
                    // Its older addresses know the session only.
                    request = request.header("Cookie", format!("m_session_id={}", token.secret));
                }
            }
            let response = request.call().map_err(|error| network(&next, &error))?;
            let status = response.status();
            if status.is_success() || enough(&response) {
                return Ok((response, next.to_string()));
            }
            let Some(location) = header(&response, "location").filter(|_| status.is_redirection()) else {
                return Err(Trouble::of_status(&response));
            };
            next = join(&next, location).ok_or_else(|| nowhere(location))?;
        }
        Err(nowhere(&next.to_string()))
    }

    /// Patience for one request.
    pub fn patience(&self) -> Patience {
        Patience { failures: 0, attempts: self.attempts, pause: self.pause }
    }
}

/// How often a request has failed in a row.
pub struct Patience {
    failures: u32,
    attempts: u32,
    pause: Duration,
}

impl Patience {
    /// The pause before the next attempt; the trouble itself when there is no use in one.
    pub fn after(&mut self, trouble: Trouble) -> Result<Duration, Trouble> {
        self.failures += 1;
        let pause = match trouble {
            Trouble::Status { pause: Some(asked), .. } => asked,
            _ => self.pause * 2u32.saturating_pow(self.failures - 1),
        };
        let hopeless = !trouble.passes() || self.failures >= self.attempts || pause > LONGEST_PAUSE;
        if hopeless { Err(trouble) } else { Ok(pause) }
    }

    /// Bytes have arrived: the failures before do not count.
    pub fn progress(&mut self) {
        self.failures = 0;
    }
}

/// What `error` is for a person.
pub fn network(address: &Uri, error: &ureq::Error) -> Trouble {
    let why = match error {
        ureq::Error::HostNotFound => "its name is not known".to_owned(),
        ureq::Error::Timeout(_) => "it does not answer in time".to_owned(),
        ureq::Error::Io(error) => reason(error),
        other => other.to_string(),
    };
    Trouble::Network { host: address.host().unwrap_or_default().to_owned(), why }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "it refuses the connection".to_owned(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => "it ended the connection".to_owned(),
        io::ErrorKind::TimedOut => "it does not answer in time".to_owned(),
        _ => error.to_string(),
    }
}

/// The address that `location`, absolute or relative, names on a page at `base` (RFC 3986, 5.2, without dot segments).
pub(super) fn join(base: &Uri, location: &str) -> Option<Uri> {
    let scheme = base.scheme_str()?;
    let origin = format!("{scheme}://{}", base.authority()?);
    let absolute =
        location.split_once("://").is_some_and(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphabetic()));
    let joined = if absolute {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{origin}{location}")
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{origin}{folder}/{location}")
    };
    joined.parse().ok().filter(|address: &Uri| matches!(address.scheme_str(), Some("http" | "https")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_read_as_browsers_read_them() {
        let base: Uri = "https://hub:8443/a/resolve/main/f.bin?x=1".parse().unwrap();
        for (location, expected) in [
            ("https://cdn/f?k=v", "https://cdn/f?k=v"),
            ("//cdn/f", "https://cdn/f"),
            ("/b/resolve/main/f.bin", "https://hub:8443/b/resolve/main/f.bin"),
            ("g.bin?to=http://x/", "https://hub:8443/a/resolve/main/g.bin?to=http://x/"),
        ] {
            assert_eq!(join(&base, location).unwrap().to_string(), expected);
        }
        assert_eq!(join(&base, "file:///etc/passwd"), None);
    }

    #[test]
    fn another_scheme_host_or_port_is_another_origin() {
        let origin = |address: &str| Origin::of(&address.parse().unwrap());
        assert_eq!(origin("https://hub/a"), origin("https://HUB:443/b?c"));
        for other in ["http://hub/a", "https://hub:444/a", "https://hub.evil/a", "https://a.hub/"] {
            assert_ne!(origin("https://hub/a"), origin(other), "{other}");
        }
    }

    #[test]
    fn pauses_double_until_patience_ends_unless_the_server_names_one() {
        let mut patience = Patience { failures: 0, attempts: 4, pause: Duration::from_secs(1) };
        let cut = || Trouble::Cut { at: (1, 2) };
        let seconds: Vec<u64> = (0..3).map(|_| patience.after(cut()).unwrap().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4]);
        assert_eq!(patience.after(cut()), Err(cut()));
        patience.progress();
        let limited = |pause| Trouble::Status { status: 429, code: None, message: None, pause };
        let asked = Some(Duration::from_secs(40));
        assert_eq!(patience.after(limited(asked)), Ok(Duration::from_secs(40)));
        assert!(patience.after(limited(Some(Duration::from_hours(2)))).is_err(), "two hours are too long");
    }
}
