//! `llavm run --on ray`: the tasks of a run done by a Ray cluster.
//!
//! This process plans: it keeps the keys, counts rejects and believes only what the store has. A task of the cluster is a process
//! `llavm work`, which takes a range of partitions through all map stages that can follow; how many makes it last one to three
//! minutes. First the raw files are read, by shares; then come ranges of map stages, sequential passes, gather stages and jobs.

mod driver;
pub mod pace;

use crate::ui::failure::{Failure, Outcome};
use crate::ui::output::note;
use driver::{Answer, Driver, NoAnswer, Node, Request};
use llavm_pipeline::units::counted;
use llavm_pipeline::{Committed, Engine, Executor, Graph, Pass, Shard, StageError, TaskError, TaskSpec};
use pace::Pace;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Most threads of one task.
const MOST_CPUS: usize = 16;

/// Bytes asked for: those of a process, and of each of its threads.
const MEMORY: u64 = 1 << 30;
const MEMORY_A_CPU: u64 = 256 << 20;

/// How long a task that another process is at is left alone.
const BUSY: Duration = Duration::from_secs(2);

/// How long NFS and the like may believe that a file is not there (`acdirmax`).
const UNSEEN: Duration = Duration::from_secs(75);

/// Where the tasks of a run are done, if not in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct On {
    /// Of the cluster; empty for the one that Ray finds.
    address: String,
}

impl std::str::FromStr for On {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write ray, or ray:ADDRESS such as ray:10.0.0.1:6379".to_owned();
        let address = match text.strip_prefix("ray").ok_or_else(wrong)? {
            "" => "",
            rest => rest.strip_prefix(':').filter(|address| is_address(address)).ok_or_else(wrong)?,
        };
        Ok(Self { address: address.to_owned() })
    }
}

/// Whether it is `HOST:PORT`, of Ray itself or (`ray://`) of its client's server.
fn is_address(text: &str) -> bool {
    let place = text.strip_prefix("ray://").unwrap_or(text);
    place.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// An executor on a cluster.
pub struct Ray {
    driver: Driver,
    /// `work MANIFEST --set …`.
    argv: Vec<String>,
    /// Threads of a task.
    cpus: usize,
    memory: u64,
    slots: usize,
    /// GPUs of the whole cluster.
    gpus: usize,
    /// Jobs that compute on a GPU.
    on_gpu: BTreeMap<String, usize>,
    pace: Mutex<Pace>,
    /// Keys of all outputs that were made.
    made: Mutex<BTreeSet<String>>,
}

impl Ray {
    /// Joins the cluster. `cpus`: threads of a task, by default those of the smallest node.
    pub fn start(
        on: &On,
        graph: &Graph,
        set: &[String],
        cpus: Option<usize>,
        cancel: &Arc<AtomicBool>,
    ) -> Result<Self, Failure> {
        let (driver, nodes) = Driver::start(&on.address, cancel)?;
        let nodes: Vec<Node> = nodes.into_iter().filter(|node| node.cpus > 0).collect();
        let smallest = nodes.iter().map(|node| node.cpus).min().unwrap_or(0);
        let cpus = cpus.unwrap_or(smallest.clamp(1, MOST_CPUS));
        let slots: usize = nodes.iter().map(|node| node.cpus / cpus).sum();
        if slots == 0 {
            let largest = nodes.iter().map(|node| node.cpus).max().unwrap_or(0);
            let text = format!(
                "a task asks for {}, and the largest node has {largest}",
                counted(cpus as u64, "CPU")
            );
            return Err(Failure::failed(text, Some("Give a smaller --jobs, or add nodes.".to_owned())));
        }
        let half = nodes.iter().map(|node| node.memory / 2).min().unwrap_or(0);
        let (nodes_text, cpus_text) = (counted(nodes.len() as u64, "node"), counted(cpus as u64, "CPU"));
        note(&format!(
            "Ray: {nodes_text}, {} at a time with {cpus_text} each",
            counted(slots as u64, "task")
        ));
        let manifest = graph.manifest.display().to_string();
        let set = set.iter().flat_map(|set| ["--set".to_owned(), set.clone()]);
        Ok(Self {
            driver,
            argv: ["work".to_owned(), manifest].into_iter().chain(set).collect(),
            cpus,
            memory: half.min(MEMORY + cpus as u64 * MEMORY_A_CPU),
            slots,
            gpus: nodes.iter().map(|node| node.gpus).max().unwrap_or(0),
            on_gpu: on_gpu(graph),
            pace: Mutex::default(),
            made: Mutex::default(),
        })
    }

    fn request(&self, more: &[&str], stdin: String) -> Request {
        let jobs = self.cpus.to_string();
        let more = more.iter().copied().chain(["--jobs", &jobs]).map(str::to_owned);
        let argv = self.argv.iter().cloned().chain(more).collect();
        Request { argv, stdin, cpus: self.cpus, memory: self.memory, gpus: 0 }
    }

    /// The first wave: what is remembered of raw files is found out on all nodes.
    pub fn read_ahead(&self, engine: &Engine) -> Outcome {
        let unread = engine.unread_files()?;
        if unread < 2 {
            return Ok(());
        }
        note(&format!("Ray: reading {} ahead", counted(unread as u64, "raw file")));
        let of = unread.min(2 * self.slots);
        let share = |index: usize| {
            let shard = Shard { index, of }.to_string();
            match self.driver.ask(&self.request(&["--read-ahead", &shard], String::new())) {
                Ok(Answer { rc: Some(0), .. }) => Ok(()),
                Ok(answer) => Err(Failure::from(explained(&answer))),
                Err(NoAnswer::Cancelled) => Err(Failure::interrupted()),
                Err(NoAnswer::Gone(words)) => Err(Failure::from(gone(&words))),
            }
        };
        std::thread::scope(|scope| {
            let shares: Vec<_> = (0..of).map(|index| scope.spawn(move || share(index))).collect();
            let ended = shares.into_iter().map(|share| {
                share.join().unwrap_or_else(|_| Err(Failure::failed("a thread panicked", None)))
            });
            ended.collect::<Vec<Outcome>>().into_iter().collect()
        })
    }

    fn work(&self, tasks: &[TaskSpec], gpus: usize) -> Result<Vec<Result<Committed, TaskError>>, TaskError> {
        let lines: Result<Vec<String>, _> = tasks.iter().map(serde_json::to_string).collect();
        let lines = lines.map_err(|cause| StageError::new(format!("a task: {cause}")))?;
        let request = self.request(&["--tasks", "-", "--follow"], lines.join("\n"));
        let answer = self.driver.ask(&Request { gpus, ..request }).map_err(|why| match why {
            NoAnswer::Cancelled => TaskError::Stopped,
            NoAnswer::Gone(words) => gone(&words).into(),
        })?;
        let lines: Vec<Line> =
            answer.tail.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        self.remember(tasks, &lines, answer.seconds);
        let ended: Vec<_> = tasks.iter().map(|task| ended(task, &lines, &answer)).collect();
        if ended.iter().any(|ended| matches!(ended, Err(TaskError::Busy))) {
            self.driver.pause(BUSY);
        }
        Ok(ended)
    }

    fn remember(&self, tasks: &[TaskSpec], lines: &[Line], seconds: f64) {
        let made = lines.iter().filter_map(|line| line.committed.as_ref()).filter(|done| !done.reused);
        let mut all = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(made.map(|done| done.entry.key.clone()));
        drop(all);
        if let Some(first) = tasks.first() {
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            pace.remember(&first.stage, tasks.len(), seconds);
        }
    }

    fn gpus_of(&self, task: &TaskSpec) -> Result<usize, StageError> {
        let wants = self.on_gpu.get(&task.stage).copied().unwrap_or(0);
        if wants <= self.gpus {
            return Ok(wants);
        }
        let (stage, most) = (&task.stage, self.gpus);
        let text = match most {
            0 => format!("`{stage}` computes on a GPU, and no node of the cluster has one"),
            _ => format!(
                "`{stage}` computes on {wants} GPUs of one node, and no node of the cluster has more than {most}"
            ),
        };
        Err(StageError::new(text).help(
            "Add a node with as many (Ray counts them), or name fewer in `device`, or `device = \"cpu\"`.",
        ))
    }
}

impl Executor for Ray {
    fn execute(&self, task: &TaskSpec) -> Result<Committed, TaskError> {
        let gpus = self.gpus_of(task)?;
        let ended = self.work(std::slice::from_ref(task), gpus)?.pop();
        ended.unwrap_or_else(|| Err(StageError::new("no answer").into()))
    }

    fn execute_all(&self, tasks: &[TaskSpec]) -> Vec<Result<Committed, TaskError>> {
        self.work(tasks, 0).unwrap_or_else(|error| {
            let again = |error: &TaskError| match error {
                TaskError::Failed(cause) => {
                    let error = StageError::new(cause.to_string());
                    TaskError::Failed(
                        cause.advice().map(str::to_owned).into_iter().fold(error, StageError::help),
                    )
                }
                _ => TaskError::Stopped,
            };
            tasks.iter().map(|_| Err(again(&error))).collect()
        })
    }

    fn batch(&self, stage: &str, ready: usize) -> usize {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).batch(stage, ready, self.slots)
    }

    /// One more than work at a time, so that the next task is there when one ends.
    fn slots(&self) -> Option<usize> {
        Some(self.slots + 1)
    }

    fn patience(&self) -> Duration {
        UNSEEN
    }

    fn has_made(&self, key: &str) -> bool {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }
}

/// The jobs whose parameters say that they compute on GPUs, and on how many.
fn on_gpu(graph: &Graph) -> BTreeMap<String, usize> {
    let jobs = graph.nodes.iter().filter(|node| node.stage.role.is_job());
    let count = |device: &str| device.starts_with("cuda").then(|| device.split(',').count());
    let wanting =
        jobs.filter_map(|job| Some((job.name.clone(), count(job.stage.params["device"].as_str()?)?)));
    wanting.collect()
}

/// What `llavm work` prints of a task.
#[derive(Deserialize)]
struct Line {
    stage: String,
    pass: Pass,
    index: usize,
    result: String,
    why: Option<String>,
    help: Option<String>,
    committed: Option<Committed>,
}

/// How a task ended, as the lines say.
fn ended(task: &TaskSpec, lines: &[Line], answer: &Answer) -> Result<Committed, TaskError> {
    let is_its = |line: &&Line| (&line.stage, line.pass, line.index) == (&task.stage, task.pass, task.index);
    let Some(line) = lines.iter().find(is_its) else { return Err(explained(answer).into()) };
    match (line.result.as_str(), &line.committed) {
        ("done", Some(committed)) => Ok(committed.clone()),
        ("again", _) => Err(TaskError::Busy),
        _ => {
            let why = StageError::new(line.why.clone().unwrap_or_default());
            Err(line.help.iter().fold(why, StageError::help).into())
        }
    }
}

/// A task that did not even say how it ended.
fn explained(answer: &Answer) -> StageError {
    let Answer { rc, node, stderr, .. } = answer;
    let stderr = stderr.trim();
    let text = match rc {
        Some(rc) => format!("llavm work ended with {rc} on node {node}: {stderr}"),
        None if node.is_empty() => format!("Ray gave a task up: {stderr}"),
        None => format!("node {node}: {stderr}"),
    };
    StageError::new(text).help(
        "Every node has to see this folder, the manifest, the raw files, tokenizers and the store under the same paths. Then run the \
         same command again: what is finished is kept.",
    )
}

fn gone(last_words: &str) -> StageError {
    let text = format!("the Ray driver is gone: {last_words}");
    StageError::new(text.trim_end_matches([':', ' ']))
        .help("Run the same command again: what is finished is kept.")
}
