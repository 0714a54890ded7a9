//! A scratch folder with sample data and manifests, and the built program run in it.
//!
//! No child outlives its test: [`Running`] kills on drop, and [`Project::run`] waits.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest time any single run of these tests may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_mins(4);

/// A folder of its own for one test.
pub struct Project {
    folder: TempDir,
}

/// One stage of `--summary`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageSummary {
    pub kind: String,
    pub partitions: u64,
    pub ran: u64,
    pub reused: u64,
    pub rows: u64,
    pub rejected: BTreeMap<String, u64>,
}

/// The stages of `--summary`, by name.
pub type Summary = BTreeMap<String, StageSummary>;

impl Project {
    /// An empty folder.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A folder with copies of these files and folders of the repository, at the same places.
    pub fn with(paths: &[&str]) -> Self {
        let project = Self::new();
        for path in paths {
            copy(&repository().join(path), &project.path(path));
        }
        project
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn write(&self, path: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// `from` becomes `to` in a file that holds `from` exactly once.
    pub fn replace(&self, path: &str, from: &str, to: &str) {
        let text = self.read(path);
        assert_eq!(text.matches(from).count(), 1, "{from:?} in {path}");
        self.write(path, text.replace(from, to));
    }

    /// The program with these arguments, in this folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llavm"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        #[cfg(unix)]
        hear_of_interrupts(&mut command);
        command
    }

    /// Runs to the end, whatever the end is.
    pub fn llavm(&self, arguments: &[&str]) -> Output {
        let child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running(child).output()
    }

    /// Runs to a good end and gives what stdout holds.
    pub fn stdout(&self, arguments: &[&str]) -> String {
        let output = self.llavm(arguments);
        assert!(output.status.success(), "{arguments:?}: {}\n{}", output.status, text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// `llavm run` with `--summary`; the run must succeed.
    pub fn run(&self, arguments: &[&str]) -> Summary {
        let summary = self.path("summary.json");
        let arguments = [&["run"], arguments, &["--summary", summary.to_str().unwrap()]].concat();
        self.stdout(&arguments);
        parse(&fs::read_to_string(&summary).unwrap())
    }
}

/// A process that is killed when the test lets go of it.
pub struct Running(pub Child);

impl Running {
    /// Sends SIGKILL; true when the process was still alive.
    pub fn kill(&mut self) -> bool {
        let alive = self.0.try_wait().unwrap().is_none();
        self.0.kill().ok();
        self.0.wait().unwrap();
        alive
    }

    /// Waits for the end; a process that does not end is a failed test, not a hanging one.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "still running after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it wrote, read while it runs so that a full pipe cannot stop it.
    fn output(mut self) -> Output {
        let drain = |pipe: Option<Box<dyn std::io::Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                pipe.unwrap().read_to_end(&mut bytes).unwrap();
                bytes
            })
        };
        let stdout = drain(self.0.stdout.take().map(|pipe| Box::new(pipe) as _));
        let stderr = drain(self.0.stderr.take().map(|pipe| Box::new(pipe) as _));
        let status = self.wait();
        Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// stdout and stderr together.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The names of the stages that did any work.
pub fn ran(summary: &Summary) -> Vec<&str> {
    summary.iter().filter(|(_, stage)| stage.ran > 0).map(|(name, _)| name.as_str()).collect()
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn parse(summary: &str) -> Summary {
    let summary: Value = serde_json::from_str(summary).unwrap();
    let stages = summary["stages"].as_array().unwrap();
    stages.iter().map(|stage| (stage["name"].as_str().unwrap().to_owned(), parse_stage(stage))).collect()
}

fn parse_stage(stage: &Value) -> StageSummary {
    let count = |key: &str| stage[key].as_u64().unwrap_or_else(|| panic!("{key} in {stage}"));
    let rejected = stage["rejected"].as_object().unwrap();
    StageSummary {
        kind: stage["kind"].as_str().unwrap().to_owned(),
        partitions: count("partitions"),
        ran: count("ran"),
        reused: count("reused"),
        rows: count("rows"),
        rejected: rejected.iter().map(|(reason, rows)| (reason.clone(), rows.as_u64().unwrap())).collect(),
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
}

/// Lets `command` hear of Ctrl-C, as from a terminal: what a shell puts into the background ignores it, and so would its children.
#[cfg(unix)]
fn hear_of_interrupts(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let reset = || {
        // SAFETY: `signal` may be called between fork and exec, and the default action is no function of ours.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
        Ok(())
    };
    // SAFETY: `reset` calls nothing but `signal`.
    unsafe { command.pre_exec(reset) };
}
