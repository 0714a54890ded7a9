//! The driver: a Python process that hands tasks to a Ray cluster, by lines of JSON (`driver.py`).

use crate::ui::failure::Failure;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Read by `python -c`.
const SOURCE: &str = include_str!("driver.py");

/// Names the Python that has the cluster's ray.
const PYTHON: &str = "LLAVM_RAY_PYTHON";

/// How often a thread that waits for an answer looks whether the run was cancelled.
const POLL: Duration = Duration::from_millis(100);

/// How long the driver may take to leave the cluster.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lines of its standard error that are shown when it ends.
const LAST_LINES: usize = 12;

/// What a node has.
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    pub cpus: usize,
    pub gpus: usize,
    /// Bytes.
    pub memory: u64,
}

/// A task for any node.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Request {
    /// Arguments of llavm.
    pub argv: Vec<String>,
    pub stdin: String,
    pub cpus: usize,
    /// Bytes; 0 for any.
    pub memory: u64,
    pub gpus: usize,
}

/// What came of a task.
#[derive(Clone, Debug, Deserialize)]
pub struct Answer {
    id: u64,
    /// The exit status of llavm; none where it was not run, or was lost more often than Ray tries again.
    pub rc: Option<i32>,
    /// Where it ran; empty where that is not known.
    pub node: String,
    /// How long it ran.
    pub seconds: f64,
    /// Its standard output.
    pub tail: String,
    /// The end of its standard error.
    pub stderr: String,
}

/// The first line.
#[derive(Deserialize)]
#[serde(untagged)]
enum Hello {
    Ready { nodes: Vec<Node> },
    Failed { error: String, help: String },
}

/// Why there is no answer.
pub enum NoAnswer {
    /// The run was cancelled.
    Cancelled,
    /// The driver is gone; its last words.
    Gone(String),
}

type Waiting = Mutex<Option<HashMap<u64, SyncSender<Answer>>>>;

/// A driver that runs.
pub struct Driver {
    child: Mutex<Child>,
    input: Mutex<Option<ChildStdin>>,
    /// Who waits for which answer; `None` once the driver is gone.
    waiting: Arc<Waiting>,
    next: AtomicU64,
    last_words: Arc<Mutex<VecDeque<String>>>,
    cancel: Arc<AtomicBool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver {
    /// Starts it, and waits until it has joined the cluster at `address` (empty: the one that Ray finds).
    pub fn start(address: &str, cancel: &Arc<AtomicBool>) -> Result<(Self, Vec<Node>), Failure> {
        let python = std::env::var_os(PYTHON).unwrap_or_else(|| "python3".into());
        let (program, folder) = (std::env::current_exe()?, std::env::current_dir()?);
        let mut command = Command::new(&python);
        command.args(["-c", SOURCE, address]).arg(program).arg(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        away_from_ctrl_c(&mut command);
        let help = format!("Install Python with the ray of the cluster, or name it in {PYTHON}.");
        let no_python =
            |error| Failure::wrong(format!("{}: {error}", Path::new(&python).display()), help.clone());
        let mut child = command.spawn().map_err(no_python)?;
        let last_words = Arc::default();
        if let Some(stderr) = child.stderr.take() {
            let words = Arc::clone(&last_words);
            std::thread::spawn(move || listen(BufReader::new(stderr), &words));
        }
        let output = child.stdout.take().map(BufReader::new);
        let input = Mutex::new(child.stdin.take());
        let (waiting, cancel) = (Arc::new(Mutex::new(Some(HashMap::new()))), Arc::clone(cancel));
        let driver =
            Self { child: Mutex::new(child), input, waiting, next: AtomicU64::new(0), last_words, cancel };
        let nodes = driver.greet(output)?;
        Ok((driver, nodes))
    }

    /// Reads the first line, and leaves the rest to a thread.
    fn greet(&self, output: Option<BufReader<ChildStdout>>) -> Result<Vec<Node>, Failure> {
        let gone = || Failure::failed(format!("the Ray driver ended at once:\n{}", self.last_words()), None);
        let mut output = output.ok_or_else(gone)?;
        let (send, receive) = sync_channel(1);
        let waiting = Arc::clone(&self.waiting);
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = output.read_line(&mut line);
            // Nobody waits any more after Ctrl-C.
            let _ = send.send(read.map(|_| line));
            hand_out(output, &waiting);
        });
        let line = match self.receive(&receive) {
            Ok(line) => line?,
            Err(NoAnswer::Cancelled) => return Err(Failure::interrupted()),
            Err(NoAnswer::Gone(_)) => return Err(gone()),
        };
        match serde_json::from_str(&line) {
            Ok(Hello::Ready { nodes }) => Ok(nodes),
            Ok(Hello::Failed { error, help }) => {
                Err(Failure::failed(error, (!help.is_empty()).then_some(help)))
            }
            Err(_) => Err(gone()),
        }
    }

    /// Waits until a task is done.
    pub fn ask(&self, request: &Request) -> Result<Answer, NoAnswer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (send, receive) = sync_channel(1);
        match lock(&self.waiting).as_mut() {
            Some(waiting) => waiting.insert(id, send),
            None => return Err(NoAnswer::Gone(self.last_words())),
        };
        let mut line = serde_json::json!(request);
        line["id"] = id.into();
        if let Some(input) = lock(&self.input).as_mut() {
            // Where the driver is gone, the channel says so.
            let _ = input.write_all(format!("{line}\n").as_bytes());
        }
        self.receive(&receive)
    }

    fn receive<T>(&self, channel: &Receiver<T>) -> Result<T, NoAnswer> {
        loop {
            match channel.recv_timeout(POLL) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(NoAnswer::Gone(self.last_words())),
                Err(RecvTimeoutError::Timeout) if self.cancel.load(Ordering::Relaxed) => {
                    return Err(NoAnswer::Cancelled);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Waits, but not for a run that was cancelled.
    pub fn pause(&self, pause: Duration) {
        let start = Instant::now();
        while start.elapsed() < pause && !self.cancel.load(Ordering::Relaxed) {
            std::thread::sleep(POLL);
        }
    }

    fn last_words(&self) -> String {
        lock(&self.last_words).iter().cloned().collect::<Vec<_>>().join("\n")
    }
}

/// Ctrl-C on a terminal goes to all processes of its group: the driver ends when the run says so.
#[cfg(unix)]
fn away_from_ctrl_c(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

#[cfg(not(unix))]
fn away_from_ctrl_c(_command: &mut Command) {}

fn listen(stderr: impl BufRead, words: &Mutex<VecDeque<String>>) {
    for line in stderr.lines().map_while(Result::ok) {
        tracing::debug!("ray: {line}");
        let mut words = lock(words);
        words.push_back(line);
        if words.len() > LAST_LINES {
            words.pop_front();
        }
    }
}

/// Gives answers to who waits for them, until the driver is gone.
fn hand_out(output: impl BufRead, waiting: &Waiting) {
    for line in output.lines().map_while(Result::ok) {
        let Ok(answer) = serde_json::from_str::<Answer>(&line) else {
            tracing::debug!("ray: {line}");
            continue;
        };
        let send = lock(waiting).as_mut().and_then(|waiting| waiting.remove(&answer.id));
        // After Ctrl-C nobody waits.
        send.map(|send| send.send(answer));
    }
    *lock(waiting) = None;
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(lock(&self.input).take());
        let (mut child, start) = (lock(&self.child), Instant::now());
        while matches!(child.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        // Gone already, as a rule.
        let _ = child.kill();
        let _ = child.wait();
    }
}
