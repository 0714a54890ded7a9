//! Towers (language model, vision tower) in folders: which files they are, and what their content is.

use std::fs;
use std::path::{Path, PathBuf};

use crate::weights::{Checkpoint, WeightsError};

/// Files that decide, beside the weights, what a tower makes of its input.
const CONFIGURATION: [&str; 3] = ["config.json", "preprocessor_config.json", "processor_config.json"];

/// A tower that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TowerError {
    /// Its weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The files that decide what the tower in `folder` computes: weights, then configuration.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, TowerError> {
    let mut files: Vec<PathBuf> = Checkpoint::open(folder)?.files().map(Path::to_owned).collect();
    files.extend(CONFIGURATION.iter().map(|name| folder.join(name)).filter(|path| path.is_file()));
    Ok(files)
}

/// Bytes of those files.
pub fn size(folder: &Path) -> Result<u64, TowerError> {
    let size = |path: PathBuf| fs::metadata(&path).map(|file| file.len()).map_err(io(&path));
    files(folder)?.into_iter().map(size).sum()
}

/// The content digest of those files (blake3, hexadecimal): equal for equal towers, wherever they lie.
pub fn digest(folder: &Path) -> Result<String, TowerError> {
    let mut all = blake3::Hasher::new();
    for path in files(folder)? {
        let file = fs::File::open(&path).map_err(io(&path))?;
        let mut one = blake3::Hasher::new();
        one.update_reader(file).map_err(io(&path))?;
        all.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        all.update(one.finalize().as_bytes());
    }
    Ok(all.finalize().to_hex().to_string())
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> TowerError {
    let path = path.to_owned();
    move |source| TowerError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gqa").join(name)
    }

    #[test]
    fn a_copy_has_the_same_digest_until_a_byte_changes() {
        let copy = tempfile::tempdir().unwrap();
        for file in files(&fixture("clip")).unwrap() {
            fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
        }
        assert_eq!(digest(copy.path()).unwrap(), digest(&fixture("clip")).unwrap());
        assert_ne!(digest(copy.path()).unwrap(), digest(&fixture("qwen")).unwrap());
        let config = copy.path().join("config.json");
        fs::write(&config, fs::read_to_string(&config).unwrap() + " ").unwrap();
        assert_ne!(digest(copy.path()).unwrap(), digest(&fixture("clip")).unwrap());
    }
}
