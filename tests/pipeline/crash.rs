//! Killed anywhere and run again, a run ends as if never killed; damage is found and mended; a full disk is no disaster; many
//! processes share a store.

use crate::project::{Project, Running, text};
use crate::tables::{assert_same, results, stage_files};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const MANIFEST: &str = "manifests/cc3m-sample.toml";
const KILLS: usize = 50;
/// Kills in one store before it may finish: enough to hit early and late stages.
const KILLS_PER_STORE: usize = 5;

fn fresh() -> Project {
    let project = Project::with(&["data/cc3m", "data/qwen3-tokenizer", MANIFEST]);
    project.replace(MANIFEST, "partition_rows = 64", "partition_rows = 16");
    project
}

/// What an undisturbed run leaves, and how long it takes.
fn undisturbed() -> (BTreeMap<PathBuf, Vec<u8>>, Duration) {
    let (project, start) = (fresh(), Instant::now());
    project.run(&[MANIFEST]);
    (results(&project.path(".llavm")), start.elapsed())
}

fn start(project: &Project) -> Running {
    let mut command = project.command(&["run", MANIFEST, "--jobs", "2"]);
    Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// Numbers without a pattern, the same in every run of the test (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }

    fn duration(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.below(longest.as_micros() as u64))
    }
}

#[test]
fn killed_at_any_point_then_rerun_equals_undisturbed() {
    let (expected, whole) = undisturbed();
    let (mut random, mut kills, mut stores) = (Random(20_261_123), 0, 0);
    while kills < KILLS {
        assert!(stores < KILLS, "{kills} kills hit a living process in {stores} stores");
        stores += 1;
        let project = fresh();
        for _ in 0..KILLS_PER_STORE {
            let mut child = start(&project);
            sleep(random.duration(whole));
            kills += usize::from(child.kill());
        }
        project.run(&[MANIFEST]);
        assert_same(&results(&project.path(".llavm")), &expected);
        project.stdout(&["verify", MANIFEST]);
    }
}

#[test]
fn three_processes_and_kills_on_one_store_end_as_one_undisturbed() {
    let (expected, whole) = undisturbed();
    let (project, mut random) = (fresh(), Random(3));
    let mut children = [start(&project), start(&project), start(&project)];
    for _ in 0..12 {
        sleep(random.duration(whole / 4));
        let child = &mut children[random.below(3) as usize];
        child.kill();
        *child = start(&project);
    }
    for mut child in children {
        assert!(child.wait().success());
    }
    assert_same(&results(&project.path(".llavm")), &expected);
    project.stdout(&["verify", MANIFEST]);
}

#[test]
fn several_processes_reuse_each_others_partitions() {
    let project = fresh();
    let mut children = [start(&project), start(&project), start(&project)];
    for child in &mut children {
        assert!(child.wait().success());
    }
    let again = project.run(&[MANIFEST]);
    assert!(again.values().all(|stage| stage.ran == 0), "{again:?}");
}

/// A stage, and the stage whose rerun reads or makes all of its output. Of pixels, `shards` reads only which rows are rejected.
const READERS: [(&str, &str); 6] = [
    ("pixels", "pixels"),
    ("chat", "pads"),
    ("pads", "tokens"),
    ("tokens", "labels"),
    ("labels", "shards"),
    ("shards", "shards"),
];

fn flip_a_bit(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_bit_is_found_by_verify_and_mended_by_the_run_that_reads_it() {
    let project = fresh();
    project.run(&[MANIFEST]);
    let expected = results(&project.path(".llavm"));
    for (stage, reader) in READERS {
        let damaged = &stage_files(&project, MANIFEST, stage)[1];
        flip_a_bit(damaged);
        let verify = project.llavm(&["verify", MANIFEST]);
        assert_eq!(verify.status.code(), Some(1), "{stage}");
        assert!(text(&verify).contains(damaged.file_name().unwrap().to_str().unwrap()), "{}", text(&verify));
        project.run(&[MANIFEST, "--force", reader]);
        assert_same(&results(&project.path(".llavm")), &expected);
        project.stdout(&["verify", MANIFEST]);
    }
}

#[test]
fn every_file_of_the_store_is_covered_by_verify() {
    let project = fresh();
    project.run(&[MANIFEST]);
    let store = project.path(".llavm");
    for path in results(&store).keys() {
        let whole = std::fs::read(store.join(path)).unwrap();
        flip_a_bit(&store.join(path));
        let verify = project.llavm(&["verify", MANIFEST]);
        assert_eq!(verify.status.code(), Some(1), "{} is not checked", path.display());
        std::fs::write(store.join(path), whole).unwrap();
    }
    project.stdout(&["verify", MANIFEST]);
}

/// Runs the program with the store on a file system of 2 MB, enlarges that, and runs it again. In a mount of its own, which
/// goes away with the shell.
const SMALL_DISK: &str = r#"
mkdir -p .llavm
mount -t tmpfs -o size=2m tmpfs .llavm || exit 77
"$LLAVM" run "$MANIFEST" 2> full.txt
echo $? > full.status
mount -o remount,size=400m .llavm
"$LLAVM" run "$MANIFEST" > /dev/null || exit 1
"$LLAVM" verify "$MANIFEST" > /dev/null || exit 1
cp -r .llavm results
"#;

/// Where mounting is not allowed: files may not grow over 1 MB, then they may.
const SMALL_FILES: &str = r#"
( trap '' XFSZ; ulimit -f 1024; exec "$LLAVM" run "$MANIFEST" 2> full.txt )
echo $? > full.status
"$LLAVM" run "$MANIFEST" > /dev/null || exit 1
"$LLAVM" verify "$MANIFEST" > /dev/null || exit 1
cp -r .llavm results
"#;

fn shell(project: &Project, program: &[&str], script: &str) -> Option<i32> {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).arg(script).current_dir(project.path(""));
    command.env("LLAVM", env!("CARGO_BIN_EXE_llavm")).env("MANIFEST", MANIFEST);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    Running(child).wait().code()
}

#[test]
fn a_full_disk_is_a_clear_error_and_the_run_completes_once_there_is_room() {
    let mut project = fresh();
    let mut expect = "No space left on device";
    let mut status =
        shell(&project, &["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"], SMALL_DISK);
    if !project.path("full.status").exists() {
        eprintln!(
            "no mount allowed here: testing with a limit on the size of files instead of a small file system"
        );
        project = fresh();
        expect = "File too large";
        status = shell(&project, &["bash", "-c"], SMALL_FILES);
    }
    assert_eq!(status, Some(0), "the run did not complete once there was room");
    assert_eq!(project.read("full.status").trim(), "1");
    let said = project.read("full.txt");
    assert!(said.contains(expect) && said.contains("pixels"), "{said}");
    assert_same(&results(&project.path("results")), &undisturbed().0);
}

#[test]
fn an_interrupt_ends_the_run_soon_and_the_next_run_completes_it() {
    let (expected, whole) = undisturbed();
    let mut random = Random(11);
    for _ in 0..5 {
        let project = fresh();
        let mut child = start(&project);
        sleep(random.duration(whole));
        Command::new("kill").args(["-INT", &child.0.id().to_string()]).status().unwrap();
        child.wait();
        // Interrupted before it had a store, it left none to verify.
        if project.path(".llavm/tables").exists() {
            project.stdout(&["verify", MANIFEST]);
        }
        project.run(&[MANIFEST]);
        assert_same(&results(&project.path(".llavm")), &expected);
    }
}
