//! Roots: which keys a manifest last stood for. What `explain` compares with, and what `gc` keeps.
//!
//! A root is named by the path of the manifest and the settings of the command line (`--set`): two `train.toml` of different
//! folders, or the runs of a sweep over a learning rate, do not push each other out.

use super::Store;
use super::record::{seal, unseal};
use crate::spec::error::StageError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What one manifest with its settings stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The manifest's absolute path; empty for roots of earlier versions.
    #[serde(default)]
    pub manifest: PathBuf,
    /// The `K=V` of `--set`, sorted.
    #[serde(default)]
    pub settings: Vec<String>,
    /// When it was last run: milliseconds since 1970.
    #[serde(default)]
    pub time: u64,
    /// By stage name.
    pub stages: BTreeMap<String, StageRoot>,
}

/// What is known of one stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRoot {
    pub kind: String,
    /// By partition or unit; `None` where it was never made.
    pub outputs: Vec<Option<Known>>,
    /// The same for the intermediate columns of a stage with a sequential pass.
    #[serde(alias = "first_pass")]
    pub intermediate: Vec<Option<Known>>,
    /// Of a job: the name of its unfinished folder.
    #[serde(alias = "promise")]
    pub provisional: Option<String>,
}

/// One finished partition or unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    pub label: String,
    pub key: String,
    pub digest: String,
    pub rows: u64,
}

impl Root {
    /// An empty root.
    pub fn new(manifest: &Path, settings: &[String]) -> Self {
        let manifest = std::path::absolute(manifest).unwrap_or_else(|_| manifest.to_owned());
        let mut settings = settings.to_vec();
        settings.sort();
        Self { manifest, settings, time: 0, stages: BTreeMap::new() }
    }

    /// A plain file name: the manifest's, for people, and what tells roots apart.
    pub fn name(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for part in std::iter::once(self.manifest.to_string_lossy().as_ref())
            .chain(self.settings.iter().map(String::as_str))
        {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        let stem = self.manifest.file_stem().unwrap_or_default().to_string_lossy();
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let stem: String = stem.chars().filter(is_plain).take(60).collect();
        let digest: String = hasher.finalize().to_hex().chars().take(16).collect();
        format!("{stem}-{digest}")
    }
}

/// What these settings of this manifest stood for when they were last run; when they never were, what its newest root says.
pub fn read(store: &dyn Store, manifest: &Path, settings: &[String]) -> Result<Root, StageError> {
    let empty = Root::new(manifest, settings);
    if let Some(root) = store.root(&empty.name())?.and_then(|bytes| unseal::<Root>(&bytes)) {
        return Ok(root);
    }
    let all = store.roots()?.into_iter().filter_map(|(_, bytes)| unseal::<Root>(&bytes));
    let own = all.filter(|root| root.manifest == empty.manifest);
    let newest = own.max_by_key(|root| root.time).map(|root| root.stages);
    Ok(Root { stages: newest.unwrap_or_default(), ..empty })
}

/// Replaces a root by what `change` makes of it. Runs on other threads and in other processes lose nothing.
pub fn change(
    store: &dyn Store,
    root: &Root,
    change: impl Fn(&mut Root) -> Result<(), StageError>,
) -> Result<(), StageError> {
    store.change_root(&root.name(), &mut |bytes| {
        let old = bytes.and_then(|bytes| unseal::<Root>(&bytes));
        let mut new = old.unwrap_or_else(|| root.clone());
        change(&mut new)?;
        seal(&new).map(Some)
    })
}

/// All roots by name; an error when one is damaged, because what it keeps is unknown.
pub fn all(store: &dyn Store) -> Result<Vec<(String, Root)>, StageError> {
    let roots = store.roots()?.into_iter();
    roots
        .map(|(name, bytes)| {
            let root = unseal::<Root>(&bytes).ok_or_else(|| {
                StageError::new(format!("{}: the root {name} is damaged", store.name()))
                    .help("Run its manifest once more to write it again, or remove the file.")
            })?;
            Ok((name, root))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::folder::Folder;

    #[test]
    fn manifests_of_one_name_and_settings_of_one_manifest_have_roots_of_their_own() {
        let set = |text: &str| vec![text.to_owned()];
        let names = [
            Root::new(Path::new("/a/train.toml"), &[]).name(),
            Root::new(Path::new("/b/train.toml"), &[]).name(),
            Root::new(Path::new("/a/train.toml"), &set("lr=1e-4")).name(),
            Root::new(Path::new("/a/train.toml"), &set("lr=2e-4")).name(),
        ];
        for (n, name) in names.iter().enumerate() {
            assert!(name.starts_with("train-") && !names[..n].contains(name), "{name}");
        }
        let sorted = Root::new(Path::new("a"), &["x=1".to_owned(), "y=2".to_owned()]);
        assert_eq!(sorted.name(), Root::new(Path::new("a"), &["y=2".to_owned(), "x=1".to_owned()]).name());
    }

    #[test]
    fn changes_by_many_threads_all_arrive() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let folder = folder.path();
                scope.spawn(move || {
                    let store = Folder::open(folder).unwrap();
                    for n in 0..10 {
                        change(store.as_ref(), &Root::new(Path::new("m.toml"), &[]), |root| {
                            root.stages.insert(format!("{thread}-{n}"), StageRoot::default());
                            Ok(())
                        })
                        .unwrap();
                    }
                });
            }
        });
        let store = Folder::open(folder.path()).unwrap();
        assert_eq!(read(store.as_ref(), Path::new("m.toml"), &[]).unwrap().stages.len(), 40);
    }
}
