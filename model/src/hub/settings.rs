//! What the environment says about the hub: the variables that `huggingface_hub` reads, with its precedence
//! (`huggingface_hub/constants.py`, `utils/_auth.py`).
//!
//! | variable | meaning |
//! |---|---|
//! | `HF_ENDPOINT` | the hub or a mirror of it [https://huggingface.co] |
//! | `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME` | the cache folder [~/.cache/huggingface/hub] |
//! | `HF_TOKEN`, `HF_TOKEN_PATH` | the token, or the file that holds it [HF_HOME/token, which a login writes] |
//! | `HF_HUB_OFFLINE` | 1: use no network |
//! | `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY` | proxies (http or socks), and hosts that need none |
//! | `SSL_CERT_FILE` | certificates to trust instead of Mozilla's (a company's proxy) |

use super::fetch_error::FetchError;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use ureq::Proxy;

const ENDPOINT: &str = "https://huggingface.co";
const PROXIES: [&str; 6] =
    ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];

/// How the hub is reached, and where its files are kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hub's address without a slash at its end.
    pub endpoint: String,
    /// The cache folder, which holds `models--ORG--NAME` and so on.
    pub cache: PathBuf,
    /// Who asks.
    pub token: Option<Token>,
    /// Whether the network must not be used.
    pub offline: bool,
    /// The proxy for hosts that `NO_PROXY` does not name.
    pub proxy: Option<Proxy>,
    /// A PEM file with the certificates to trust.
    pub certificates: Option<PathBuf>,
    /// Failures in a row, without a byte in between, after which a request is given up.
    pub attempts: u32,
    /// The pause after the first failure; each further one is twice as long.
    pub pause: Duration,
    /// The longest silence of a server.
    pub silence: Duration,
    /// Files downloaded at the same time.
    pub jobs: usize,
}

/// A secret and where it was found. Shown only as its source.
#[derive(Clone)]
pub struct Token {
    pub(super) secret: String,
    /// `HF_TOKEN`, or the file.
    pub source: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the token of {}", self.source)
    }
}

impl Settings {
    /// Reads the environment.
    pub fn from_env() -> Result<Self, FetchError> {
        let mut settings = Self::of(&|name| env::var_os(name))?;
        settings.proxy = Proxy::try_from_env();
        if settings.proxy.is_none()
            && let Some(name) =
                PROXIES.into_iter().find(|name| env::var_os(name).is_some_and(|v| !v.is_empty()))
        {
            return Err(FetchError::Proxy { variable: name });
        }
        Ok(settings)
    }

    /// Reads the variables that `get` gives; no proxy.
    pub fn of(get: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, FetchError> {
        let var = |name: &str| get(name).filter(|value| !value.is_empty());
        let text = |name: &str| var(name).map(|value| value.to_string_lossy().into_owned());
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let offline = text("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_uppercase();
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: cache_of(&|name| var(name).map(PathBuf::from)),
            token: token(&|name| var(name))?,
            offline: matches!(offline.as_str(), "1" | "ON" | "YES" | "TRUE"),
            proxy: None,
            certificates: var("SSL_CERT_FILE").map(PathBuf::from),
            attempts: 6,
            pause: Duration::from_secs(1),
            silence: Duration::from_secs(30),
            jobs: 8,
        })
    }
}

/// The cache folder that the environment names.
pub fn cache_folder() -> PathBuf {
    cache_of(&|name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
}

fn cache_of(var: &dyn Fn(&str) -> Option<PathBuf>) -> PathBuf {
    var("HF_HUB_CACHE").or_else(|| var("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| home(var).join("hub"))
}

/// `HF_HOME`, or where it is by default.
fn home(var: &dyn Fn(&str) -> Option<PathBuf>) -> PathBuf {
    var("HF_HOME").unwrap_or_else(|| {
        let cache = || env::home_dir().unwrap_or_default().join(".cache");
        var("XDG_CACHE_HOME").unwrap_or_else(cache).join("huggingface")
    })
}

fn token(var: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<Token>, FetchError> {
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        if let Some(value) = var(name) {
            return Token::new(&value.to_string_lossy(), name.to_owned());
        }
    }
    let path = |name: &str| var(name).map(PathBuf::from);
    let file = path("HF_TOKEN_PATH").unwrap_or_else(|| home(&path).join("token"));
    match fs::read_to_string(&file) {
        Ok(text) => Token::new(&text, file.display().to_string()),
        // No login. A file that is there and cannot be read is a mistake to be told.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FetchError::Io { path: file, source }),
    }
}

impl Token {
    fn new(text: &str, source: String) -> Result<Option<Self>, FetchError> {
        let secret = text.trim();
        if secret.chars().any(|c| !c.is_ascii_graphic()) {
            return Err(FetchError::Token { place: source });
        }
        Ok((!secret.is_empty()).then(|| Self { secret: secret.to_owned(), source }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Settings, FetchError> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        Settings::of(&|name| find(name).map(|(_, value)| OsString::from(value)))
    }

    #[test]
    fn the_variables_of_huggingface_hub_are_respected() {
        let settings =
            of(&[("HF_ENDPOINT", "https://mirror/"), ("HF_HOME", "/hf"), ("HF_HUB_OFFLINE", "true")])
                .unwrap();
        assert_eq!((settings.endpoint.as_str(), settings.offline), ("https://mirror", true));
        assert_eq!(settings.cache, PathBuf::from("/hf/hub"));
        assert_eq!(of(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]).unwrap().cache, PathBuf::from("/c"));
        assert_eq!(of(&[("HF_HOME", "/no/such")]).unwrap().endpoint, ENDPOINT);
    }

    #[test]
    fn the_token_is_that_of_the_environment_before_that_of_the_login() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "hf_login\n").unwrap();
        let folder = home.path().to_str().unwrap();
        let secret = |variables: &[(&str, &str)]| of(variables).unwrap().token.map(|token| token.secret);
        assert_eq!(secret(&[("HF_HOME", folder)]).as_deref(), Some("hf_login"));
        assert_eq!(secret(&[("HF_HOME", folder), ("HF_TOKEN", " hf_env ")]).as_deref(), Some("hf_env"));
        let file = home.path().join("token").display().to_string();
        assert_eq!(secret(&[("HF_HOME", "/no/such"), ("HF_TOKEN_PATH", &file)]).as_deref(), Some("hf_login"));
        assert_eq!(secret(&[("HF_HOME", "/no/such")]), None);
    }

    #[test]
    fn a_token_is_never_shown() {
        let settings = of(&[("HF_TOKEN", "hf_secret")]).unwrap();
        let shown = format!("{settings:?}");
        assert!(shown.contains("the token of HF_TOKEN") && !shown.contains("hf_secret"), "{shown}");
        let error = of(&[("HF_TOKEN", "hf_secret two")]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hf_secret"), "{error}");
    }
}
