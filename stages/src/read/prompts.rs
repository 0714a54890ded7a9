//! `prompts`: the instructions that caption-only sets draw from.
//!
//! In: a list of texts, or a file with one on each line (blank lines and lines that begin with `#` are none). Out: one of them for
//! a row, by the seed and what the row is, so that a set read again asks the same.
//!
//! A drawn instruction needs an image: "describe the image" without one teaches to make things up. Where `prompts` is the only
//! source of questions, a row without an image is rejected (`read/no-image`).

use super::locate::local;
use llavm_pipeline::StageError;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where the instructions stand.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged, into = "Vec<String>")]
pub enum Prompts {
    List(Vec<String>),
    File(String),
}

/// The texts of a file decide, never its name: they enter the digest of the rows.
impl From<Prompts> for Vec<String> {
    fn from(prompts: Prompts) -> Self {
        match prompts {
            Prompts::List(texts) => texts,
            Prompts::File(_) => Self::new(),
        }
    }
}

impl Default for Prompts {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Prompts {
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::List(texts) if texts.is_empty())
    }

    /// The file that should be there and is not.
    pub fn missing(&self) -> Option<String> {
        match self {
            Self::File(file) if !local(file).is_ok_and(|path| path.is_file()) => Some(file.clone()),
            _ => None,
        }
    }

    pub fn texts(&self) -> Result<Vec<String>, StageError> {
        let file = match self {
            Self::List(texts) => return Ok(texts.clone()),
            Self::File(file) => file,
        };
        let path: PathBuf = local(file)?;
        let text = std::fs::read_to_string(&path).map_err(|cause| StageError::io(&path, cause))?;
        let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
        let texts: Vec<String> =
            lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect();
        if texts.is_empty() {
            return Err(StageError::new(format!("prompts = \"{file}\": the file holds no instruction"))
                .help("Write one instruction on each line."));
        }
        Ok(texts)
    }
}

/// The instruction of a row: by its number in its file, by what it says of itself (its id and its answer, since many files may have one
/// row each), and by `item`, which tells rows apart that come from one raw row.
pub fn draw<'a>(
    prompts: &'a [String],
    seed: u64,
    row_in_file: u64,
    own: &[&str],
    item: usize,
) -> Option<&'a str> {
    let mut hasher = blake3::Hasher::new();
    for number in [seed, row_in_file, item as u64] {
        hasher.update(&number.to_le_bytes());
    }
    for text in own {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    let mut drawn = [0; 8];
    hasher.finalize_xof().fill(&mut drawn);
    let index = u64::from_le_bytes(drawn).checked_rem(prompts.len() as u64)?;
    prompts.get(index as usize).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_one_instruction_on_each_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zh.txt");
        std::fs::write(&path, "\u{feff}# LLaVA\r\n\r\n图中有什么？\r\n  描述图片。\n").unwrap();
        let prompts: Prompts = serde_json::from_value(serde_json::json!(path)).unwrap();
        assert_eq!(prompts.texts().unwrap(), ["图中有什么？", "描述图片。"]);
        assert_eq!(serde_json::to_string(&prompts).unwrap(), "[]", "a name enters no key");
        std::fs::write(&path, "# nothing\n").unwrap();
        assert!(prompts.texts().unwrap_err().to_string().contains("no instruction"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(prompts.missing(), Some(path.display().to_string()));
    }

    #[test]
    fn items_of_one_row_draw_apart() {
        let prompts: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        let drawn: Vec<_> = (0..5).map(|item| draw(&prompts, 42, 7, &["a cat"], item)).collect();
        assert_eq!(drawn, (0..5).map(|item| draw(&prompts, 42, 7, &["a cat"], item)).collect::<Vec<_>>());
        assert!(drawn.iter().any(|prompt| *prompt != drawn[0]));
        assert_eq!(draw(&[], 42, 7, &[], 0), None);
    }

    #[test]
    fn the_same_row_of_many_files_draws_differently() {
        let prompts: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        let captions: Vec<String> = (0..40).map(|n| format!("a cat {n}")).collect();
        let drawn: std::collections::BTreeSet<_> =
            captions.iter().map(|caption| draw(&prompts, 42, 0, &[caption], 0)).collect();
        assert!(drawn.len() > 15, "{drawn:?}");
    }
}
