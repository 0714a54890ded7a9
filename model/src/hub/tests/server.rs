//! A hub in miniature on the loopback interface: lists, small files, and big files behind a redirect to another host.
//!
//! Each connection serves one request and ends, so that a body shorter than its `Content-Length` is a cut connection.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// The commit of every repository here.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A file of the repository.
#[derive(Clone)]
pub struct FakeFile {
    pub path: String,
    pub body: Vec<u8>,
    pub etag: String,
    /// Whether it lies on the other host.
    pub lfs: bool,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    headers: Vec<(String, String)>,
    /// Whether it came to the host of big files.
    pub cdn: bool,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// From where, and up to which byte, if that is said.
    fn range(&self) -> Option<(usize, Option<usize>)> {
        let (start, end) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((start.parse().ok()?, end.parse::<usize>().ok().map(|last| last + 1)))
    }
}

/// What is answered instead, given the request and how many like it (same method and path) came before.
pub type Fault = dyn Fn(&Request, usize) -> Option<Vec<u8>> + Send + Sync;

/// The server and what it was asked.
pub struct FakeHub {
    /// Of the hub.
    pub address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

struct Site {
    /// Such as `models/org/name`.
    repository: String,
    files: Vec<FakeFile>,
    fault: Box<Fault>,
    cdn: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl FakeHub {
    /// A hub with one repository, such as `models/org/name`, that answers what `fault` says where it says something.
    pub fn new(
        repository: &str,
        files: &[FakeFile],
        fault: impl Fn(&Request, usize) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, cdn) = (listen(), listen());
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let fake = Self { address: address(&hub), requests: Arc::clone(&requests) };
        let site = Site {
            repository: repository.to_owned(),
            files: files.to_vec(),
            fault: Box::new(fault),
            cdn: address(&cdn),
            requests,
        };
        let site = Arc::new(site);
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            let site = Arc::clone(&site);
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let site = Arc::clone(&site);
                    thread::spawn(move || site.serve(stream, is_cdn));
                }
            });
        }
        fake
    }

    /// All requests whose path contains `part`.
    pub fn asked(&self, part: &str) -> Vec<Request> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|request| request.path.contains(part)).cloned().collect()
    }
}

/// A whole answer.
pub fn reply(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// Reads the head of a request: its first line and headers.
pub fn read_head(stream: &TcpStream) -> Option<(String, Vec<(String, String)>)> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let header =
        |line: String| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
    Some((
        first,
        lines.map_while(Result::ok).take_while(|line| !line.is_empty()).filter_map(header).collect(),
    ))
}

impl Site {
    fn serve(&self, mut stream: TcpStream, cdn: bool) {
        let Some((first, headers)) = read_head(&stream) else { return };
        let mut words = first.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let request = Request { method, path, headers, cdn };
        let before = {
            let mut requests = self.requests.lock().unwrap();
            let same = |other: &&Request| other.path == request.path && other.method == request.method;
            let before = requests.iter().filter(same).count();
            requests.push(request.clone());
            before
        };
        let mut answer = (self.fault)(&request, before).unwrap_or_else(|| self.answer(&request));
        if request.method == "HEAD" {
            let head = answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |at| at + 4);
            answer.truncate(head);
        }
        // A client that has gone away is what some tests are about.
        let _ = stream.write_all(&answer);
    }

    fn answer(&self, request: &Request) -> Vec<u8> {
        let (kind, name) = self.repository.split_once('/').unwrap();
        let page = if kind == "datasets" { format!("/datasets/{name}") } else { format!("/{name}") };
        if let Some(rest) = request.path.strip_prefix(&format!("/api/v1/{}/repo", self.repository)) {
            return self.modelscope(rest, request);
        }
        if request.path.starts_with(&format!("/api/{}/revision/", self.repository)) {
            return reply(200, &[], self.info().as_bytes());
        }
        if let Some(path) = request.path.strip_prefix(&format!("{page}/resolve/{COMMIT}/")) {
            return self
                .files
                .iter()
                .find(|file| file.path == path)
                .map_or_else(not_found, |f| self.resolve(f, request));
        }
        if let Some(etag) = request.path.strip_prefix("/cdn/") {
            let file = self.files.iter().find(|file| file.etag == etag);
            return file.map_or_else(not_found, |file| content(file, request));
        }
        not_found()
    }

    fn info(&self) -> String {
        let entry = |file: &FakeFile| {
            let size = file.body.len();
            let digest = if file.lfs {
                format!(r#""lfs":{{"sha256":"{}","size":{size},"pointerSize":130}}"#, file.etag)
            } else {
                format!(r#""blobId":"{}""#, file.etag)
            };
            format!(r#"{{"rfilename":"{}","size":{size},{digest}}}"#, file.path)
        };
        let files: Vec<String> = self.files.iter().map(entry).collect();
        format!(r#"{{"sha":"{COMMIT}","siblings":[{}]}}"#, files.join(","))
    }

    /// ModelScope's addresses: `/files?…` and `/tree?…` list, `?…&FilePath=…` is a file.
    fn modelscope(&self, rest: &str, request: &Request) -> Vec<u8> {
        let (what, query) = rest.split_once('?').unwrap();
        let value = |name: &str| {
            let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            pair.map(decoded)
        };
        assert_eq!(value("Revision").as_deref(), Some("master"));
        if let Some(path) = value("FilePath") {
            let file = self.files.iter().find(|file| file.path == path);
            return file.map_or_else(not_found, |file| self.resolve(file, request));
        }
        let root = value("Root").map_or_else(String::new, |root| root + "/");
        let below = self.files.iter().filter_map(|file| Some((file, file.path.strip_prefix(&root)?)));
        let mut entries = std::collections::BTreeMap::new();
        for (file, path) in below {
            let shallow = value("Recursive").as_deref() == Some("False");
            let (path, entry) = if let Some((folder, _)) = path.split_once('/').filter(|_| shallow) {
                let path = format!("{root}{folder}");
                let entry = format!(r#"{{"Path":"{path}","Type":"tree","Size":0,"Sha256":""}}"#);
                (path, entry)
            } else {
                let (path, size, etag) = (&file.path, file.body.len(), &file.etag);
                let entry = format!(r#"{{"Path":"{path}","Type":"blob","Size":{size},"Sha256":"{etag}"}}"#);
                (path.clone(), entry)
            };
            entries.insert(path, entry);
        }
        let number = |name: &str, default: usize| value(name).map_or(default, |n| n.parse().unwrap());
        let page = if what == "/tree" { number("PageSize", 100) } else { 3000 };
        let entries: Vec<String> =
            entries.into_values().skip((number("PageNumber", 1) - 1) * page).take(page).collect();
        let body = format!(r#"{{"Code":200,"Success":true,"Data":{{"Files":[{}]}}}}"#, entries.join(","));
        reply(200, &[], body.as_bytes())
    }

    fn resolve(&self, file: &FakeFile, request: &Request) -> Vec<u8> {
        if !file.lfs {
            return content(file, request);
        }
        let (location, size) = (format!("{}/cdn/{}", self.cdn, file.etag), file.body.len().to_string());
        let headers = [("Location", &*location), ("X-Linked-Etag", &*file.etag), ("X-Linked-Size", &*size)];
        reply(302, &headers, b"")
    }
}

fn content(file: &FakeFile, request: &Request) -> Vec<u8> {
    let etag = format!("\"{}\"", file.etag);
    let size = file.body.len();
    match request.range() {
        None => reply(200, &[("ETag", &etag)], &file.body),
        Some((start, _)) if start >= size => reply(416, &[], b""),
        Some((start, end)) => {
            let end = end.unwrap_or(size).min(size);
            let range = format!("bytes {start}-{}/{size}", end - 1);
            reply(206, &[("ETag", &etag), ("Content-Range", &range)], &file.body[start..end])
        }
    }
}

/// A percent-encoded text.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

fn not_found() -> Vec<u8> {
    reply(404, &[("X-Error-Code", "RepoNotFound"), ("X-Error-Message", "Repository not found")], b"{}")
}
