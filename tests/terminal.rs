//! What the terminal can do to a run, and what the data can do to the terminal: nothing.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test whose helpers fail has failed")]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest a call may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// An escape sequence that sets the title, a control character of ISO 6429, and one that turns the writing.
const HOSTILE: &str = "\x1b]0;owned\x07 \u{9b}2J \u{202e}";

const PIXELS: &str = r#"
name = "pixels"

[stages.rows]
kind    = "read"
files   = "DATA/cc3m/*.parquet"
columns = { image = "image", prompt = "input", answer = "output" }

[stages.pixels]
kind = "decode-resize"
from = "rows"
"#;

fn folder(manifest: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    std::fs::write(folder.path().join("m.toml"), manifest.replace("DATA", data.to_str().unwrap())).unwrap();
    folder
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llavm"));
    command.current_dir(folder).args(args).stdin(Stdio::null()).env_remove("LLAVM_LOG");
    command
}

/// The end of `child`; one that hangs is killed, and fails the test.
fn end(mut child: Child) -> ExitStatus {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    panic!("still running after {PATIENCE:?}");
}

/// The lines after the one that says that pixels are being made.
fn wait_for_work(child: &mut Child) -> impl Iterator<Item = std::io::Result<String>> + use<> {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let begun = lines.by_ref().any(|line| line.unwrap().starts_with("pixels: "));
    assert!(begun, "the run ended before it began");
    lines
}

fn output(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().unwrap()
}

fn is_up_to_date(folder: &Path) -> bool {
    String::from_utf8(output(folder, &["run", "m.toml"]).stdout).unwrap().contains("nothing to do")
}

#[test]
fn a_run_whose_terminal_is_closed_goes_on_to_its_end() {
    let folder = folder(PIXELS);
    let mut child = command(folder.path(), &["run", "m.toml", "-v"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(end(child).code(), Some(0));
    assert!(is_up_to_date(folder.path()));
}

#[test]
#[cfg(target_os = "linux")]
fn a_run_whose_terminal_is_full_goes_on_to_its_end() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let folder = folder(PIXELS);
    let run = |stdout: Stdio, stderr: Stdio| {
        end(command(folder.path(), &["run", "m.toml"]).stdout(stdout).stderr(stderr).spawn().unwrap())
    };
    assert_eq!(run(full(), full()).code(), Some(0));
    assert!(is_up_to_date(folder.path()));

    // A run says so on what is left; a command whose output is all that was asked for fails.
    let run = command(folder.path(), &["run", "m.toml"]).stdout(full()).output().unwrap();
    let said = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(0));
    assert!(said.contains("cannot write to standard output: No space left on device"), "{said}");
    let status = command(folder.path(), &["status", "m.toml"]).stdout(full()).output().unwrap();
    let said = String::from_utf8(status.stderr).unwrap();
    assert_eq!(status.status.code(), Some(1));
    assert!(said.contains("cannot write to standard output"), "{said}");
}

#[test]
fn a_failure_that_nobody_can_read_keeps_its_exit_status() {
    let folder = folder(&PIXELS.replace("DATA/cc3m/", "nowhere/"));
    let mut child = command(folder.path(), &["run", "m.toml"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert_eq!(end(child).code(), Some(2));
}

#[test]
fn a_run_started_to_ignore_hangups_outlives_its_terminal() {
    let folder = folder(PIXELS);
    let program = env!("CARGO_BIN_EXE_llavm");
    let mut child = Command::new("sh")
        .args(["-c", &format!("trap '' HUP; exec '{program}' run m.toml --jobs 1")])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = wait_for_work(&mut child);
    Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
    drop(lines);
    assert_eq!(end(child).code(), Some(0));
    assert!(is_up_to_date(folder.path()));
}

/// Lets `command` hear of Ctrl-C, as from a terminal: what a shell puts into the background ignores it, and so would its children.
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

#[test]
fn an_interrupted_run_ends_with_status_130() {
    let folder = folder(PIXELS);
    let mut run = command(folder.path(), &["run", "m.toml", "--jobs", "1"]);
    hear_of_interrupts(&mut run);
    let mut child = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = wait_for_work(&mut child);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(end(child).code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.starts_with("stopping; what is finished is kept")), "{rest:?}");
}

/// Rows whose ids, words and image names want to command the terminal.
fn hostile() -> tempfile::TempDir {
    let manifest = r#"
name = "hostile\u001b[2J"
max_rejects = 1.0

[stages.rows]
kind    = "read"
files   = "rows.jsonl"
images  = "."
columns = { id = "id", image = "image", prompt = "prompt", answer = "answer" }

[stages.pixels]
kind = "decode-resize"
from = "rows"
"#;
    let folder = folder(manifest);
    let row = |n: usize| {
        serde_json::json!({
            "id": format!("{n}{HOSTILE}"),
            "image": if n == 0 { format!("lost{HOSTILE}.jpg") } else { "broken.jpg".to_owned() },
            "prompt": HOSTILE,
            "answer": HOSTILE,
        })
    };
    let rows: String = (0..3).map(|n| format!("{}\n", row(n))).collect();
    std::fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    std::fs::write(folder.path().join("broken.jpg"), format!("<html>{HOSTILE}")).unwrap();
    folder
}

fn commands_the_terminal(text: &str) -> bool {
    text.contains(|c: char| c != '\n' && c != '\t' && c.is_control() || c == '\u{202e}')
}

#[test]
fn nothing_in_the_data_commands_the_terminal() {
    let folder = hostile();
    for args in [
        &["run", "m.toml"][..],
        &["run", "m.toml", "-vv", "--force", "pixels"],
        &["status", "m.toml"],
        &["status", "m.toml", "--json"],
        &["peek", "m.toml", "rows"],
        &["peek", "m.toml", "pixels", "--rejected"],
        &["run", "m.toml", "--until", HOSTILE],
        &["validate", HOSTILE],
    ] {
        let output = output(folder.path(), args);
        for text in [output.stdout, output.stderr] {
            let text = String::from_utf8(text).unwrap();
            assert!(!commands_the_terminal(&text), "{args:?}: {text:?}");
        }
    }
    let said = String::from_utf8(output(folder.path(), &["peek", "m.toml", "rows"]).stdout).unwrap();
    assert!(said.contains("0␛]0;owned␇"), "the id is shown all the same: {said}");
}

#[test]
fn a_failing_row_commands_no_terminal_either() {
    let folder = hostile();
    let manifest = std::fs::read_to_string(folder.path().join("m.toml")).unwrap();
    std::fs::write(folder.path().join("m.toml"), manifest.replace("max_rejects = 1.0", "max_rejects = 0.1"))
        .unwrap();
    let output = output(folder.path(), &["run", "m.toml"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("the first ones") && !commands_the_terminal(&said), "{said:?}");
}

#[test]
fn verbose_says_what_happens_inside() {
    let folder = folder(PIXELS);
    let said = String::from_utf8(output(folder.path(), &["run", "m.toml", "-v"]).stderr).unwrap();
    for wanted in ["pixels", "close time.busy="] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    assert!(!commands_the_terminal(&said), "{said:?}");
}
