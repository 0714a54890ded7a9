//! What the environment says about the hub: the variables that `huggingface_hub` reads, with its precedence
//! (`huggingface_hub/constants.py`, `utils/_auth.py`), and those of `modelscope_hub` (`config.py`).
//!
//! | variable | meaning |
//! |---|---|
//! | `HF_ENDPOINT` | the hub or a mirror of it [https://huggingface.co] |
//! | `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME` | the cache folder [~/.cache/huggingface/hub]; `~` and `$NAME` in them are expanded |
//! | `HF_TOKEN`, `HF_TOKEN_PATH` | the token, or the file that holds it [HF_HOME/token, which a login writes] |
//! | `MODELSCOPE_ENDPOINT`, `MODELSCOPE_CACHE`, `MODELSCOPE_API_TOKEN` | the same of ModelScope [https://www.modelscope.cn, ~/.cache/modelscope] |
//! | `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` | 1: use no network |
//! | `HF_HUB_DISABLE_SYMLINKS` | 1: no symbolic links in the cache |
//! | `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY` | proxies (http or socks), and hosts that need none |
//! | `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`, `SSL_CERT_FILE`, `SSL_CERT_DIR` | the first that is set: the only certificates to trust, a PEM file or a folder of them [Mozilla's and the system's] |

use super::disk::{Disk, Linkless, Native};
use super::fetch_error::FetchError;
use super::lock::Lease;
use super::source::Source;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use ureq::Proxy;

const ENDPOINT: &str = "https://huggingface.co";
const MODELSCOPE_ENDPOINT: &str = "https://www.modelscope.cn";
/// Variables that name certificates, by precedence: those of Python's requests before OpenSSL's.
const CERTIFICATES: [&str; 4] = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"];
/// Variables that forbid the network; of several the first that is set decides.
const OFFLINE: [&str; 2] = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"];
const PROXIES: [&str; 6] =
    ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];

/// A source of repositories: where it is, and where its files are kept.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its address without a slash at its end.
    pub endpoint: String,
    /// The cache folder.
    pub cache: PathBuf,
    /// Who asks.
    pub token: Option<Token>,
}

/// A PEM file, or a folder of them, and the variable that names it.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The variable.
    pub variable: &'static str,
    /// Its value.
    pub path: PathBuf,
}

/// How repositories are reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Hugging Face hub.
    pub hub: Site,
    /// ModelScope.
    pub modelscope: Site,
    /// The variable that forbids the network.
    pub offline: Option<&'static str>,
    /// The proxy for hosts that `NO_PROXY` does not name.
    pub proxy: Option<Proxy>,
    /// The only certificates to trust.
    pub certificates: Option<Certificates>,
    /// What the caches' file system can do.
    pub disk: Arc<dyn Disk>,
    /// How long locks live where the file system has none.
    pub lease: Lease,
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
        let is_true = |name: &str| {
            let value = text(name).unwrap_or_default().to_ascii_uppercase();
            matches!(value.as_str(), "1" | "ON" | "YES" | "TRUE")
        };
        let endpoint = |name: &str, default: &str| {
            let address = text(name).unwrap_or_else(|| default.to_owned());
            address.trim_end_matches('/').to_owned()
        };
        let certificates = |variable| Some(Certificates { variable, path: var(variable)?.into() });
        let disk: Arc<dyn Disk> =
            if is_true("HF_HUB_DISABLE_SYMLINKS") { Arc::new(Linkless) } else { Arc::new(Native) };
        let site = |source, endpoint, token| Site { endpoint, cache: cache_of(source, get), token };
        let modelscope_token = text(Source::ModelScope.variables().token);
        let modelscope_token = modelscope_token
            .map_or(Ok(None), |value| Token::new(&value, Source::ModelScope.variables().token.to_owned()))?;
        Ok(Self {
            hub: site(Source::HuggingFace, endpoint("HF_ENDPOINT", ENDPOINT), token(get)?),
            modelscope: site(
                Source::ModelScope,
                endpoint("MODELSCOPE_ENDPOINT", MODELSCOPE_ENDPOINT),
                modelscope_token,
            ),
            offline: OFFLINE.into_iter().find(|name| var(name).is_some()).filter(|name| is_true(name)),
            proxy: None,
            certificates: CERTIFICATES.into_iter().find_map(certificates),
            disk,
            lease: Lease::default(),
            attempts: 6,
            pause: Duration::from_secs(1),
            silence: Duration::from_secs(30),
            jobs: 8,
        })
    }
}

impl Settings {
    /// Where repositories of `source` are.
    pub fn site(&self, source: Source) -> &Site {
        match source {
            Source::HuggingFace => &self.hub,
            Source::ModelScope => &self.modelscope,
        }
    }
}

/// The value of an environment variable.
type Get<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The cache folder of a source that the environment names.
pub fn cache_folder(source: Source) -> PathBuf {
    cache_of(source, &|name| env::var_os(name))
}

fn cache_of(source: Source, get: Get<'_>) -> PathBuf {
    match source {
        Source::HuggingFace => {
            let named = folder(get, "HF_HUB_CACHE").or_else(|| folder(get, "HUGGINGFACE_HUB_CACHE"));
            named.unwrap_or_else(|| home(get).join("hub"))
        }
        Source::ModelScope => {
            folder(get, "MODELSCOPE_CACHE").unwrap_or_else(|| user_folder(get).join(".cache/modelscope"))
        }
    }
}

/// `HF_HOME`, or where it is by default.
fn home(get: Get<'_>) -> PathBuf {
    folder(get, "HF_HOME").unwrap_or_else(|| {
        let cache = folder(get, "XDG_CACHE_HOME").unwrap_or_else(|| user_folder(get).join(".cache"));
        cache.join("huggingface")
    })
}

/// The folder of the person whose environment it is.
fn user_folder(get: Get<'_>) -> PathBuf {
    let named = get("HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    named.or_else(env::home_dir).unwrap_or_default()
}

/// A variable that names a file or folder, as Python's `expandvars(expanduser(…))` reads it: `~`, `$NAME` and `${NAME}` are
/// replaced; unknown names stay. No shell has done it where a container's or a service's file sets the variable.
fn folder(get: Get<'_>, name: &str) -> Option<PathBuf> {
    let value = get(name).filter(|value| !value.is_empty())?;
    let Some(text) = value.to_str() else { return Some(value.into()) };
    let text = match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            format!("{}{rest}", user_folder(get).display())
        }
        _ => text.to_owned(),
    };
    Some(expand(&text, get).into())
}

/// Replaces `$NAME` and `${NAME}`.
fn expand(text: &str, get: Get<'_>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out += before;
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let plain = after.split_at(after.find(|letter| !is_part(letter)).unwrap_or(after.len()));
        let (name, behind) = braced.unwrap_or(plain);
        match get(name).filter(|_| !name.is_empty()) {
            Some(value) => out += &value.to_string_lossy(),
            None => out += &text[text.len() - after.len() - 1..text.len() - behind.len()],
        }
        rest = behind;
    }
    out + rest
}

fn token(get: Get<'_>) -> Result<Option<Token>, FetchError> {
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        if let Some(value) = get(name).filter(|value| !value.is_empty()) {
            return Token::new(&value.to_string_lossy(), name.to_owned());
        }
    }
    let file = folder(get, "HF_TOKEN_PATH").unwrap_or_else(|| home(get).join("token"));
    match fs::read_to_string(&file) {
        Ok(text) => Token::new(&text, file.display().to_string()),
        // No login. A file that is there and cannot be read is a mistake to be reported.
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
        assert_eq!(
            (settings.hub.endpoint.as_str(), settings.offline),
            ("https://mirror", Some("HF_HUB_OFFLINE"))
        );
        assert_eq!(settings.hub.cache, PathBuf::from("/hf/hub"));
        assert_eq!(of(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]).unwrap().hub.cache, PathBuf::from("/c"));
        assert_eq!(of(&[("HF_HOME", "/no/such")]).unwrap().hub.endpoint, ENDPOINT);
    }

    #[test]
    fn folders_are_expanded_as_python_expands_them() {
        let cache = |name: &str, value: &str| {
            let settings = of(&[(name, value), ("HOME", "/home/ann"), ("SCRATCH", "/scratch"), ("U", "ann")]);
            settings.unwrap().hub.cache.display().to_string()
        };
        for (value, expected) in [
            ("~/hf", "/home/ann/hf"),
            ("~", "/home/ann"),
            ("~bob/hf", "~bob/hf"),
            ("$HOME/hf", "/home/ann/hf"),
            ("${SCRATCH}/$U/hf", "/scratch/ann/hf"),
            ("$NOT_SET/${NOR_THIS}/$", "$NOT_SET/${NOR_THIS}/$"),
            ("/a~b/$U.d", "/a~b/ann.d"),
        ] {
            assert_eq!(cache("HF_HUB_CACHE", value), expected, "{value}");
            assert_eq!(cache("HF_HOME", value), format!("{expected}/hub"), "{value}");
        }
        assert_eq!(
            of(&[("HOME", "/home/ann")]).unwrap().hub.cache,
            PathBuf::from("/home/ann/.cache/huggingface/hub")
        );
    }

    #[test]
    fn the_network_is_forbidden_by_either_variable_the_hubs_own_first() {
        let offline = |variables: &[(&str, &str)]| of(variables).unwrap().offline;
        assert_eq!(offline(&[("TRANSFORMERS_OFFLINE", "1")]), Some("TRANSFORMERS_OFFLINE"));
        assert_eq!(offline(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]), None);
        assert_eq!(
            offline(&[("HF_HUB_OFFLINE", ""), ("TRANSFORMERS_OFFLINE", "yes")]),
            Some("TRANSFORMERS_OFFLINE")
        );
        assert_eq!(offline(&[]), None);
    }

    #[test]
    fn certificates_are_those_of_the_first_variable_that_is_set() {
        let named =
            |variables: &[(&str, &str)]| of(variables).unwrap().certificates.map(|found| found.variable);
        assert_eq!(
            named(&[("SSL_CERT_FILE", "/f"), ("REQUESTS_CA_BUNDLE", "/r")]),
            Some("REQUESTS_CA_BUNDLE")
        );
        assert_eq!(named(&[("SSL_CERT_DIR", "/d")]), Some("SSL_CERT_DIR"));
        assert_eq!(named(&[]), None);
    }

    #[test]
    fn modelscope_has_its_own_place_and_token() {
        let settings = of(&[
            ("HOME", "/home/ann"),
            ("MODELSCOPE_API_TOKEN", "ms-secret"),
            ("MODELSCOPE_ENDPOINT", "https://mirror.cn/"),
        ]);
        let site = settings.unwrap().modelscope;
        assert_eq!(
            (site.endpoint.as_str(), site.cache),
            ("https://mirror.cn", PathBuf::from("/home/ann/.cache/modelscope"))
        );
        assert_eq!(site.token.unwrap().secret, "ms-secret");
        let site = of(&[("MODELSCOPE_CACHE", "/ms")]).unwrap().modelscope;
        assert_eq!((site.endpoint.as_str(), site.cache), (MODELSCOPE_ENDPOINT, PathBuf::from("/ms")));
    }

    #[test]
    fn the_token_is_that_of_the_environment_before_that_of_the_login() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "hf_login\n").unwrap();
        let folder = home.path().to_str().unwrap();
        let secret = |variables: &[(&str, &str)]| of(variables).unwrap().hub.token.map(|token| token.secret);
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
