//! Toy stages of all four roles, and a world (a folder with raw files, a manifest and a store) to run them in.

#![allow(dead_code, reason = "each test binary uses a part of this module")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

pub mod jobs;
pub mod toys;

use llavm_pipeline::observer::Silent;
use llavm_pipeline::summary::StageSummary;
use llavm_pipeline::{Engine, Finished, Graph, Manifest, Options, Summary};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// A folder to run manifests in.
pub struct World {
    folder: tempfile::TempDir,
    /// The text of the manifest; `$DIR` stands for the folder.
    pub manifest: String,
    pub options: Options,
    /// Changes the graph that was read.
    pub tweak: fn(&mut Graph),
}

impl World {
    pub fn new(manifest: &str) -> Self {
        let options = Options { jobs: 2, ..Options::default() };
        Self { folder: tempfile::tempdir().unwrap(), manifest: manifest.to_owned(), options, tweak: |_| () }
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
        let path = self.path("manifest.toml");
        let manifest = Manifest::read(text.as_bytes(), &path, &[], &toys::registry());
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

/// Lines `a0|p0`, `a1|p1` …: a text and a picture.
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
