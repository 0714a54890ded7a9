//! What a person types for a result: a folder, `hub:ORG/NAME`, or a manifest, whose last run made it.
//!
//! `llavm run` leaves `<store>/latest/<manifest>/<stage>` behind, a link to the folder that the stage made last; where the file
//! system has no links, a text file with the way there.

use crate::ui::failure::Failure;
use llavm_model::hub::is_repository;
use llavm_pipeline::manifest::did_you_mean;
use llavm_pipeline::storage::workdir;
use llavm_pipeline::{Graph, Manifest};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The folder that holds the links, in the store or in what this machine keeps beside one elsewhere.
const LATEST: &str = "latest";
/// What a manifest's name ends in.
const TOML: &str = ".toml";

/// The model that `text` names, as `ModelFolder::open` takes it.
pub fn model(text: &str) -> Result<String, Failure> {
    let found = from_manifest(text, &["train"], "trained model")?;
    Ok(found.map_or_else(|| text.to_owned(), |folder| folder.display().to_string()))
}

/// The evaluation that `text` names: its folder, or the `report.json` in it.
pub fn evaluation(text: &str) -> Result<PathBuf, Failure> {
    Ok(from_manifest(text, &["evaluate", "benchmark"], "evaluation")?.unwrap_or_else(|| PathBuf::from(text)))
}

/// The folder that a stage of one of the kinds made, where `text` is MANIFEST or MANIFEST:STAGE.
fn from_manifest(text: &str, kinds: &[&str], what: &str) -> Result<Option<PathBuf>, Failure> {
    let Some((path, stage)) = split(text) else { return Ok(None) };
    let graph = Manifest::load(Path::new(path), &[], &llavm_stages::registry())?.graph;
    let stage = chosen(&graph, stage, kinds, what)?;
    let link = link(&graph, stage);
    match follow(&link) {
        Some(folder) => Ok(Some(folder)),
        None => Err(Failure::failed(
            format!("`{stage}` of {path} has not been made, or its result is gone"),
            Some(format!("Make it with `llavm run {path}`.")),
        )),
    }
}

/// A manifest and, behind a colon, a stage; `None` for a folder or a hub name.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if is_repository(text) || Path::new(text).is_dir() {
        return None;
    }
    if text.ends_with(TOML) {
        return Some((text, None));
    }
    text.rsplit_once(':').filter(|(path, _)| path.ends_with(TOML)).map(|(path, stage)| (path, Some(stage)))
}

/// The named stage of one of the kinds; or, of the first kind that there is, the only one that no other stage of that kind goes on
/// from.
fn chosen<'g>(graph: &'g Graph, named: Option<&str>, kinds: &[&str], what: &str) -> Result<&'g str, Failure> {
    let there = kinds.iter().filter(|kind| graph.nodes.iter().any(|node| node.stage.kind == **kind));
    let kinds: Vec<&str> = if named.is_some() { kinds.to_vec() } else { there.take(1).copied().collect() };
    let of_kind = |node: &&llavm_pipeline::graph::Node| kinds.contains(&node.stage.kind);
    let all: Vec<&str> = graph.nodes.iter().filter(of_kind).map(|node| node.name.as_str()).collect();
    let manifest = graph.manifest.display();
    if let Some(name) = named {
        return all.iter().copied().find(|stage| *stage == name).ok_or_else(|| {
            let text = format!("{manifest} has no {what} `{name}`");
            Failure::wrong(text, did_you_mean(name, "stages", all.iter().copied()))
        });
    }
    let goes_on = |name: &str| {
        let from = graph.find(name);
        graph.nodes.iter().filter(of_kind).any(|node| node.tables().any(|table| Some(table) == from))
    };
    let last: Vec<&str> = all.iter().copied().filter(|name| !goes_on(name)).collect();
    match last.as_slice() {
        [one] => Ok(one),
        [] => {
            Err(Failure::wrong(format!("{manifest} has no {what}"), "Name a manifest with one, or a folder."))
        }
        several => Err(Failure::wrong(
            format!("{manifest} has more than one {what}: {}", several.join(", ")),
            format!("Name one, for example {manifest}:{}", several[0]),
        )),
    }
}

/// Where the link to what a stage made last is.
fn link(graph: &Graph, stage: &str) -> PathBuf {
    let plain = |c: char| if matches!(c, '/' | '\\') || c.is_control() { '_' } else { c };
    let name: String = graph.name.chars().map(plain).collect();
    workdir(&graph.store).join(LATEST).join(if name.starts_with('.') { "_" } else { &name }).join(stage)
}

/// Remembers that `stage` made `folder` last.
pub fn remember(graph: &Graph, stage: &str, folder: &Path) -> io::Result<()> {
    let link = link(graph, stage);
    let parent = link.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(parent)?;
    let target = way(&fs::canonicalize(parent)?, &fs::canonicalize(folder)?);
    if fs::read_link(&link).is_ok_and(|old| old == target) {
        return Ok(());
    }
    let fresh = parent.join(format!(".{stage}.{}", std::process::id()));
    if fs::remove_file(&fresh).is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
        fs::remove_dir(&fresh)?;
    }
    if symlink(&target, &fresh).is_err() {
        fs::write(&fresh, target.display().to_string())?;
    }
    fs::rename(&fresh, &link)
}

/// Removes the links to what is no longer there.
pub fn forget_gone(graph: &Graph) -> io::Result<()> {
    let latest = workdir(&graph.store).join(LATEST);
    let below = |folder: &Path| -> io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect()
    };
    for manifest in if latest.is_dir() { below(&latest)? } else { Vec::new() } {
        for link in below(&manifest)?.into_iter().filter(|link| follow(link).is_none()) {
            fs::remove_file(link)?;
        }
        if below(&manifest)?.is_empty() {
            fs::remove_dir(manifest)?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// The folder behind a link, if it is still there.
fn follow(link: &Path) -> Option<PathBuf> {
    let target = fs::read_link(link).or_else(|_| fs::read_to_string(link).map(PathBuf::from)).ok()?;
    let folder = link.parent()?.join(target);
    fs::canonicalize(folder).ok().filter(|folder| folder.is_dir())
}

/// The way from one folder to another, both absolute, so that a store can be moved as a whole.
fn way(from: &Path, to: &Path) -> PathBuf {
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(common).map(|_| Component::ParentDir);
    up.chain(to.components().skip(common)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_a_stage_of_it_a_folder_and_a_hub_name_are_told_apart() {
        assert_eq!(split("m/quick.toml"), Some(("m/quick.toml", None)));
        assert_eq!(split("m/quick.toml:align"), Some(("m/quick.toml", Some("align"))));
        assert_eq!(split("hub:ORG/NAME"), None);
        assert_eq!(split("a/model"), None);
    }

    #[test]
    fn a_link_is_found_again_moved_with_its_store_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let graph = |store: &str| Graph {
            name: "a/b".to_owned(),
            manifest: PathBuf::new(),
            text: String::new(),
            seed: 0,
            store: folder.path().join(store),
            settings: Vec::new(),
            nodes: Vec::new(),
        };
        let (one, two) = (graph("one"), graph("two"));
        for key in ["1", "2", "2"] {
            let made = one.store.join("jobs/m").join(key);
            fs::create_dir_all(&made).unwrap();
            remember(&one, "m", &made).unwrap();
            assert_eq!(follow(&link(&one, "m")), Some(made.canonicalize().unwrap()));
        }
        fs::rename(&one.store, &two.store).unwrap();
        let moved = two.store.join("jobs/m/2").canonicalize().unwrap();
        assert_eq!(follow(&link(&two, "m")), Some(moved.clone()));
        let path = link(&two, "m");
        let target = fs::read_link(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, target.to_str().unwrap()).unwrap();
        assert_eq!(follow(&path), Some(moved.clone()), "a file system without links");
        forget_gone(&two).unwrap();
        assert_eq!(follow(&path), Some(moved.clone()), "what is there stays");
        fs::remove_dir(&moved).unwrap();
        assert_eq!(follow(&path), None);
        forget_gone(&two).unwrap();
        assert_eq!(fs::read_dir(two.store.join(LATEST)).unwrap().count(), 0);
    }
}
