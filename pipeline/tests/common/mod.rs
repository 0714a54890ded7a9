//! Toy stages of all four roles, and a world (a folder with raw files, a manifest and a store) to run them in.

#![allow(dead_code, reason = "each test binary uses a part of this module")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

pub mod jobs;
pub mod objects;
pub mod toys;
mod trap;

use llavm_pipeline::Silent;
use llavm_pipeline::gc::{Collected, Keep};
use llavm_pipeline::summary::StageSummary;
use llavm_pipeline::{Engine, Finished, Graph, Manifest, Options, Summary};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Stages of all four roles, with two branches, a sequential pass, a gather stage and a job.
pub const ALL_ROLES: &str = r#"
seed = 1
max_rejects = 1.0
[stages.rows]
kind = "lines"
files = ["$DIR/a.txt"]
partition_rows = 300
[stages.unique]
kind = "unique"
from = "rows"
[stages.loud]
kind = "upper"
from = "unique"
[stages.pixels]
kind = "image"
from = "rows"
[stages.packed]
kind = "pack"
from = ["loud", "pixels"]
per_partition = true
[stages.counted]
kind = "count"
from = "packed"
trace = "$DIR/trace"
"#;

/// A folder to run manifests in.
pub struct World {
    folder: tempfile::TempDir,
    /// The text of the manifest; `$DIR` stands for the folder.
    pub manifest: String,
    pub options: Options,
    /// Changes the graph that was read.
    pub tweak: fn(&mut Graph),
    /// The file that the manifest is taken to stand in.
    pub file: String,
    /// The `K=V` of the command line.
    pub set: Vec<String>,
}

impl World {
    pub fn new(manifest: &str) -> Self {
        let options = Options { jobs: 2, ..Options::default() };
        let (folder, file) = (tempfile::tempdir().unwrap(), "manifest.toml".to_owned());
        Self { folder, manifest: manifest.to_owned(), options, tweak: |_| (), file, set: Vec::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Replaces text of the manifest, which must occur in it.
    pub fn edit(&mut self, from: &str, to: &str) {
        assert!(self.manifest.contains(from), "`{from}` is not in the manifest");
        self.manifest = self.manifest.replace(from, to);
    }

    pub fn engine(&self) -> Engine {
        let folder = self.folder.path().to_str().unwrap();
        let text = format!("store = \"{folder}/store\"\n{}", self.manifest.replace("$DIR", folder));
        let path = self.path(&self.file);
        let manifest = Manifest::read(text.as_bytes(), &path, &self.set, &toys::registry());
        let mut graph = manifest.unwrap_or_else(|error| panic!("{error:?}")).graph;
        (self.tweak)(&mut graph);
        Engine::open(graph, self.options.clone()).unwrap()
    }

    /// Runs, whatever comes of it.
    pub fn try_run(&self) -> Finished {
        self.engine().run(&Silent, &AtomicBool::new(false)).unwrap()
    }

    /// Runs without errors.
    pub fn run(&self) -> Summary {
        let finished = self.try_run();
        assert!(finished.errors.is_empty(), "{:?}", finished.errors);
        finished.summary
    }

    /// Runs, and says which stages made how many partitions.
    pub fn ran(&self) -> BTreeMap<String, usize> {
        ran(&self.run())
    }

    /// The path and content of every table, record and job file of the store.
    pub fn stored(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for top in ["tables", "jobs"] {
            read_all(&self.store().join(top), &mut found);
        }
        found
            .into_iter()
            .map(|(path, bytes)| (path.strip_prefix(self.store()).unwrap().to_owned(), bytes))
            .collect()
    }

    /// The stored files of a stage.
    pub fn files(&self, stage: &str) -> Vec<PathBuf> {
        let status = self.engine().status().unwrap();
        status.stages.into_iter().find(|status| status.name == stage).unwrap().files
    }

    /// One text column of a whole table; `None` for null.
    pub fn column(&self, stage: &str, column: &str) -> Vec<Option<String>> {
        use arrow::array::{Array, StringArray};
        let batch = self.engine().table(stage).unwrap().read(0, usize::MAX, &[column]).unwrap();
        let array =
            batch.column_by_name(column).unwrap().as_any().downcast_ref::<StringArray>().unwrap().clone();
        (0..array.len()).map(|row| array.is_valid(row).then(|| array.value(row).to_owned())).collect()
    }

    /// Drops what no root stands for.
    pub fn gc(&self) -> Collected {
        let listed = self.engine().unused(Keep::default()).unwrap();
        self.engine().collect(Keep::default(), &listed).unwrap()
    }

    pub fn assert_verified(&self) {
        let found = self.engine().verify().unwrap();
        assert!(found.files > 0);
        assert_eq!(found.problems, []);
    }
}

pub fn ran(summary: &Summary) -> BTreeMap<String, usize> {
    summary.stages.iter().filter(|stage| stage.ran > 0).map(|stage| (stage.name.clone(), stage.ran)).collect()
}

pub fn stage<'a>(summary: &'a Summary, name: &str) -> &'a StageSummary {
    summary.stages.iter().find(|stage| stage.name == name).unwrap()
}

/// What [`World::ran`] should say.
pub fn counts<const N: usize>(counts: [(&str, usize); N]) -> BTreeMap<String, usize> {
    counts.into_iter().map(|(name, n)| (name.to_owned(), n)).collect()
}

/// Lines `a0|p0`, `a1|p1` …: a text and an image.
pub fn lines(prefix: &str, rows: usize) -> String {
    let lines: Vec<String> = (0..rows).map(|n| format!("{prefix}{n}|p{prefix}{n}\n")).collect();
    lines.concat()
}

pub fn read_all(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            read_all(&entry.path(), found);
        } else {
            found.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
}

/// Ends the process when `work` takes longer than a minute: what never ends fails.
pub fn watched<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let (seen, what) = (std::sync::Arc::clone(&done), what.to_owned());
    std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_mins(1));
        if !seen.load(std::sync::atomic::Ordering::SeqCst) {
            let _ =
                std::io::Write::write_all(&mut std::io::stderr(), format!("{what} never ends\n").as_bytes());
            std::process::abort();
        }
    });
    let result = work();
    done.store(true, std::sync::atomic::Ordering::SeqCst);
    result
}
