//! Images that a request to a server only names: fetched from hosts that were allowed, and from nowhere else.
//!
//! Whoever sends a request chooses the address, so nothing else is left to them: not the host, not an address inside the
//! network of the server (looked at after the name is resolved, for every redirect anew), not the size, not the time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::client::{self, join};
use super::trouble::header;
use super::{FetchError, Settings, certificates};

/// Redirects in a row that are followed.
const REDIRECTS: usize = 3;
/// For everything: names, connections, redirects, the image.
const TIME: Duration = Duration::from_secs(10);

/// Why an image is not fetched.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The address is none.
    #[error("`{0:.200}` is no http or https address")]
    Address(String),
    /// The host was not allowed.
    #[error("images are not fetched from `{0:.100}`; see --allow-remote-images")]
    Host(String),
    /// It went on and on.
    #[error("the image's address redirects more than {REDIRECTS} times")]
    Redirects,
    /// The other end has no image.
    #[error("the image's host answered with status {0}")]
    Status(u16),
    /// It is too large.
    #[error("the image has more than {0} bytes")]
    TooLarge(u64),
    /// No connection, a private address, or not in time.
    #[error("the image could not be fetched: {0}")]
    Network(String),
    /// The certificates that are to be trusted cannot be read.
    #[error(transparent)]
    Certificates(#[from] FetchError),
}

/// Fetches images.
#[derive(Debug)]
pub struct RemoteImages {
    agent: Agent,
    hosts: Vec<String>,
    most: u64,
}

/// Which addresses may be connected to.
type Allowed = fn(IpAddr) -> bool;

impl RemoteImages {
    /// From `hosts` (`*` for all, `*.example.com` for those below one), at most `most` bytes each.
    pub fn new(hosts: &[String], most: u64) -> Result<Self, RemoteError> {
        Self::with(hosts, most, is_public, TIME)
    }

    fn with(hosts: &[String], most: u64, allowed: Allowed, time: Duration) -> Result<Self, RemoteError> {
        let trusted = Settings::from_env()?.certificates;
        // A proxy would resolve names itself.
        let config = client::config(certificates::tls(trusted.as_ref())?)
            .proxy(None)
            .timeout_global(Some(time))
            .build();
        let resolver = Guarded { inner: DefaultResolver::default(), allowed };
        let agent = Agent::with_parts(config, DefaultConnector::default(), resolver);
        Ok(Self { agent, hosts: hosts.iter().map(|host| host.to_ascii_lowercase()).collect(), most })
    }

    /// The bytes at `address`.
    pub fn get(&self, address: &str) -> Result<Vec<u8>, RemoteError> {
        let nowhere = |address: &str| RemoteError::Address(address.to_owned());
        let mut next: Uri = address.parse().map_err(|_| nowhere(address))?;
        for _ in 0..=REDIRECTS {
            self.check(&next)?;
            let mut response = self.agent.get(&next).call().map_err(|error| self.failed(&error))?;
            let status = response.status();
            if status.is_success() {
                let body = response.body_mut().with_config().limit(self.most).read_to_vec();
                return body.map_err(|error| self.failed(&error));
            }
            let Some(location) = header(&response, "location").filter(|_| status.is_redirection()) else {
                return Err(RemoteError::Status(status.as_u16()));
            };
            next = join(&next, location).ok_or_else(|| nowhere(location))?;
        }
        Err(RemoteError::Redirects)
    }

    fn check(&self, address: &Uri) -> Result<(), RemoteError> {
        let scheme = address.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"));
        let host =
            scheme.and_then(|_| address.host()).ok_or_else(|| RemoteError::Address(address.to_string()))?;
        let host = host.to_ascii_lowercase();
        let allowed = self.hosts.iter().any(|named| match named.strip_prefix('*') {
            Some("") => true,
            Some(below) => below.starts_with('.') && host.ends_with(below),
            None => *named == host,
        });
        if allowed { Ok(()) } else { Err(RemoteError::Host(host)) }
    }

    fn failed(&self, error: &ureq::Error) -> RemoteError {
        match error {
            ureq::Error::BodyExceedsLimit(_) => RemoteError::TooLarge(self.most),
            ureq::Error::Timeout(_) => RemoteError::Network("its host does not answer in time".to_owned()),
            ureq::Error::HostNotFound => RemoteError::Network("its host is not known".to_owned()),
            error => RemoteError::Network(error.to_string()),
        }
    }
}

/// Resolves names, and gives none that may not be connected to.
#[derive(Debug)]
struct Guarded {
    inner: DefaultResolver,
    allowed: Allowed,
}

impl Resolver for Guarded {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        if found.iter().all(|address| (self.allowed)(address.ip())) {
            return Ok(found);
        }
        let why = "its host is inside a private network";
        Err(ureq::Error::Io(io::Error::new(io::ErrorKind::PermissionDenied, why)))
    }
}

/// Whether an address is one of the Internet's, after IANA's registries of special-purpose addresses.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        [0 | 10 | 127 | 240.., ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => true,
        [100, second, ..] => (64..128).contains(&second),
        [198, second, ..] => second & 0xfe == 18,
        _ => false,
    };
    !(special || address.is_private() || address.is_link_local() || address.is_multicast())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, _, _, g, h] = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([one, two], [three, four]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(one, two, three, four))
    };
    match (a, b) {
        // Those that stand for an IPv4 address: NAT64, 6to4.
        (0x64, 0xff9b) => (c, d) == (0, 0) && v4(g, h),
        (0x2002, _) => v4(b, c),
        // 2001::/23 are protocols (Teredo among them), 2001:db8::/32 and 3fff::/20 documents.
        (0x2001, second) => second >= 0x200 && second != 0xdb8,
        (0x3fff, second) => second >= 0x1000,
        // Everything else that is given out begins with the bits 001; `::ffff:1.2.3.4` and the like do not.
        _ => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    /// A server that gives every connection the next of `answers`.
    fn server(answers: Vec<Vec<u8>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for (answer, stream) in answers.into_iter().zip(listener.incoming()) {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(&answer);
            }
        });
        format!("http://{address}")
    }

    fn answer(head: &str, body: &[u8]) -> Vec<u8> {
        [
            format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())
                .as_bytes(),
            body,
        ]
        .concat()
    }

    fn local(most: u64) -> RemoteImages {
        RemoteImages::with(&["127.0.0.1".to_owned()], most, |_| true, Duration::from_secs(2)).unwrap()
    }

    #[test]
    fn an_image_is_fetched_over_redirects_of_allowed_hosts() {
        let moved = answer("302 Found\r\nLocation: /there.png", b"");
        let address = server(vec![moved, answer("200 OK", b"image")]);
        assert_eq!(local(5).get(&format!("{address}/here.png")).unwrap(), b"image");
    }

    #[test]
    fn redirects_elsewhere_or_without_end_are_not_followed() {
        let elsewhere = server(vec![answer("302 Found\r\nLocation: http://localhost/", b"")]);
        assert!(matches!(local(5).get(&elsewhere), Err(RemoteError::Host(host)) if host == "localhost"));
        let file = server(vec![answer("302 Found\r\nLocation: file:///etc/passwd", b"")]);
        assert!(matches!(local(5).get(&file), Err(RemoteError::Address(_))));
        let circle = server(vec![answer("302 Found\r\nLocation: /again", b""); 9]);
        assert!(matches!(local(5).get(&circle), Err(RemoteError::Redirects)));
        assert!(matches!(
            local(5).get(&server(vec![answer("404 Not Found", b"")])),
            Err(RemoteError::Status(404))
        ));
    }

    #[test]
    fn size_and_time_are_limited() {
        let large = server(vec![answer("200 OK", &[7; 100])]);
        assert!(matches!(local(99).get(&large), Err(RemoteError::TooLarge(99))));
        let unsaid = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".as_slice(), &vec![7; 100_000]].concat();
        assert!(matches!(local(99).get(&server(vec![unsaid])), Err(RemoteError::TooLarge(99))));
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", silent.local_addr().unwrap());
        assert!(matches!(local(99).get(&address), Err(RemoteError::Network(why)) if why.contains("in time")));
    }

    #[test]
    fn no_private_address_is_connected_to_whatever_it_is_called() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let images = RemoteImages::new(&["*".to_owned()], 99).unwrap();
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1", "2130706433", "0.0.0.0"] {
            let error = images.get(&format!("http://{host}:{port}/a.png")).unwrap_err();
            assert!(matches!(error, RemoteError::Network(_) | RemoteError::Address(_)), "{host}: {error}");
        }
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nobody connected");
    }

    #[test]
    fn hosts_are_those_that_were_named() {
        let hosts = ["example.com".to_owned(), "*.img.net".to_owned()];
        let images = RemoteImages::with(&hosts, 1, |_| false, TIME).unwrap();
        let allowed = |address: &str| images.check(&address.parse().unwrap()).is_ok();
        assert!(
            allowed("https://EXAMPLE.com/a")
                && allowed("http://user@example.com:8080/a")
                && allowed("http://a.img.net/")
        );
        for address in [
            "http://evil.com/",
            "http://example.com.evil.com/",
            "http://img.net/",
            "http://aimg.net/",
            "ftp://example.com/",
            "/a",
        ] {
            assert!(!allowed(address), "{address}");
        }
    }

    #[test]
    fn special_addresses_are_not_public() {
        let public = |address: &str| is_public(address.parse().unwrap());
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "100.128.0.1",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "64:ff9b::101:101",
            "2002:101:101::",
        ] {
            assert!(public(address), "{address}");
        }
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:1.1.1.1",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fec0::1",
        ] {
            assert!(!public(address), "{address}");
        }
    }
}
