//! The server as a child process, and requests byte by byte.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Far more than anything here takes.
pub const PATIENCE: Duration = Duration::from_mins(1);

pub fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("model/tests/fixtures/gqa")
}

/// A server that ends with the test.
pub struct Server {
    child: Child,
    pub address: String,
}

impl Server {
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_llavm"))
            .arg("serve")
            .arg(model())
            .args(["--port", "0"])
            .args(arguments)
            .env("HF_HOME", "/no/such/cache")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.split_once("http://").and_then(|(_, rest)| rest.split_once('/')).unwrap().0.to_owned();
        Self { child, address }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes; what comes back until the connection ends.
    pub fn raw(&self, bytes: &[u8]) -> Response {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes); // the answer may be there before all is sent
        Response::read(&mut stream)
    }

    pub fn get(&self, path: &str) -> Response {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
    }

    pub fn post(&self, path: &str, headers: &str, body: &[u8]) -> Response {
        self.raw(&post(path, headers, body))
    }

    pub fn chat(&self, body: &Value) -> Response {
        self.post("/v1/chat/completions", "", body.to_string().as_bytes())
    }

    /// A number of `/metrics`.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }

    pub fn wait_for(&self, name: &str, value: u64) {
        let start = Instant::now();
        while self.metric(name) != value {
            assert!(start.elapsed() < PATIENCE, "{name} is not {value}, but {}", self.metric(name));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it has a place for one connection more.
    pub fn wait_until_free(&self) {
        let start = Instant::now();
        while self.get("/health").status != 200 {
            assert!(start.elapsed() < PATIENCE, "every place is taken still");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Memory in use, in MiB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// Still there, and answering.
    pub fn assert_alive(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "the server has ended");
        assert_eq!(self.get("/health").status, 200);
    }

    /// Asks it to stop; its exit status and how long it took.
    pub fn stop(mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        let id = i32::try_from(self.child.id()).unwrap();
        // SAFETY: the child has not been waited for, so the id is its own.
        assert_eq!(unsafe { libc::kill(id, libc::SIGTERM) }, 0);
        let status = self.child.wait().unwrap();
        (status.code(), start.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[derive(Debug)]
pub struct Response {
    /// 0 where the connection ended without an answer.
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("{error}: {}", String::from_utf8_lossy(&bytes)),
        }
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Self { status: 0, head: String::new(), body: bytes };
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = bytes[end + 4..].to_vec();
        let body = if head.contains("transfer-encoding: chunked") { unchunked(&body) } else { body };
        Self { status, head, body }
    }

    /// The next response on a connection that stays open.
    pub fn next(stream: &mut TcpStream) -> Self {
        let head = String::from_utf8(read_until(stream, b"\r\n\r\n")).unwrap().to_lowercase();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let body = if let Some(length) = length {
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            body
        } else if head.contains("transfer-encoding: chunked") {
            unchunked(&read_until(stream, b"\r\n0\r\n\r\n"))
        } else {
            Vec::new()
        };
        Self { status, head, body }
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The status and the code of an error, whose shape is checked.
    pub fn error(&self) -> (u16, String) {
        let json = self.json();
        let error = json["error"].as_object().unwrap();
        let keys: Vec<&str> = error.keys().map(String::as_str).collect();
        assert_eq!(keys, ["code", "message", "param", "type"]);
        assert!(!error["message"].as_str().unwrap().is_empty() && error["type"].is_string());
        (self.status, error["code"].as_str().unwrap().to_owned())
    }

    /// The events of a stream, `[DONE]` and comments left out; whether it ended with `[DONE]`.
    pub fn events(&self) -> (Vec<Value>, bool) {
        assert!(self.head.contains("content-type: text/event-stream"), "{}", self.head);
        let text = self.text();
        let data = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        let (done, data): (Vec<&str>, Vec<&str>) = data.partition(|data| *data == "[DONE]");
        assert!(done.len() <= 1 && (done.is_empty() || text.ends_with("data: [DONE]\n\n")));
        (data.into_iter().map(|data| serde_json::from_str(data).unwrap()).collect(), !done.is_empty())
    }
}

/// Byte by byte: nothing behind it is taken.
fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(end) {
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    bytes
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        let rest = &bytes[end + 2..];
        all.extend(&rest[..size.min(rest.len())]);
        bytes = rest.get(size + 2..).unwrap_or_default();
    }
    all
}

/// An image as PNG.
pub fn image(step: u32) -> Vec<u8> {
    let pixel = |x: u32, y: u32| image::Rgb([(x * step) as u8, (y * 5) as u8, ((x * y) % 256) as u8]);
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_fn(60, 50, pixel).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

pub fn data_uri(kind: &str, bytes: &[u8]) -> String {
    format!("data:image/{kind};base64,{}", BASE64_STANDARD.encode(bytes))
}

/// A user's turn of words and images.
pub fn turn(text: &str, images: &[&[u8]]) -> Value {
    let shown =
        images.iter().map(|bytes| json!({"type": "image_url", "image_url": {"url": data_uri("png", bytes)}}));
    let parts: Vec<Value> = std::iter::once(json!({"type": "text", "text": text})).chain(shown).collect();
    json!({"role": "user", "content": parts})
}

pub fn ask(text: &str, max_tokens: u32) -> Value {
    json!({"messages": [{"role": "user", "content": text}], "max_tokens": max_tokens})
}
