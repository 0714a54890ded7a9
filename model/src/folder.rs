//! Model folders: what training writes and every command reads.
//!
//! ```text
//! model.toml               qwen, clip, image_pad_num, dtype, system, trained, …
//! projector.safetensors    dense1.weight [out, in], dense1.bias, dense2.weight, dense2.bias
//! adapter/                 PEFT files, when LoRA was trained
//! qwen/, clip/             full weights, only of parts that were trained or made from scratch
//! ```
//!
//! Paths in `model.toml` are relative to the folder; `hub:ORG/NAME` names a repository in the Hugging Face cache.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Dtype;
use crate::hub::{self, HUB, HubError};

/// The description in every model folder.
pub const DESCRIPTION: &str = "model.toml";
/// The projector's weights.
pub const PROJECTOR: &str = "projector.safetensors";
/// The folder of the PEFT adapter.
pub const ADAPTER: &str = "adapter";

/// `model.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The language model: a folder, relative to this one, or `hub:ORG/NAME[@REV]`.
    pub qwen: String,
    /// The vision tower, likewise.
    pub clip: String,
    /// Image pads per picture, which is the number of the tower's patches. Default: the tower's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pad_num: Option<usize>,
    /// What the model was trained in. Default f32.
    #[serde(default)]
    pub dtype: Dtype,
    /// The system prompt it was trained with. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The folder of the tokenizer. Default: `qwen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// The file of a chat template (Jinja). Default: the tokenizer's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The parts that were trained, such as `projector` and `lora`; for the reader's information.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trained: Vec<String>,
}

/// The keys of `model.toml`.
const KEYS: [&str; 8] =
    ["qwen", "clip", "image_pad_num", "dtype", "system", "tokenizer", "template", "trained"];

/// A folder that is no model folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder, or one that it names, is not there.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// There is no `model.toml`.
    #[error("{} is no model folder: it lacks model.toml. `llavm run` writes model folders; by hand, model.toml needs at least `qwen` and `clip`.", .0.display())]
    NoDescription(PathBuf),
    /// `model.toml` does not say what it should.
    #[error("{}: {why}", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        why: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A model folder whose description was read.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    /// Where it is.
    pub path: PathBuf,
    /// What it says of itself.
    pub description: Description,
}

impl ModelFolder {
    /// Opens the folder that `locator` (a path or `hub:` name) stands for.
    pub fn open(locator: &str) -> Result<Self, FolderError> {
        let folder = hub::resolve(locator)?;
        let path = folder.join(DESCRIPTION);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(FolderError::NoDescription(folder));
            }
            Err(source) => return Err(FolderError::Io { path, source }),
        };
        let description =
            Description::from_toml(&text).map_err(|why| FolderError::Description { path, why })?;
        Ok(Self { path: folder, description })
    }

    /// The folder of the language model.
    pub fn qwen(&self) -> Result<PathBuf, HubError> {
        self.resolve(&self.description.qwen)
    }

    /// The folder of the vision tower.
    pub fn clip(&self) -> Result<PathBuf, HubError> {
        self.resolve(&self.description.clip)
    }

    /// The folder of the tokenizer.
    pub fn tokenizer(&self) -> Result<PathBuf, HubError> {
        self.resolve(self.description.tokenizer.as_ref().unwrap_or(&self.description.qwen))
    }

    /// The file of the chat template, when it is not the tokenizer's.
    pub fn template(&self) -> Option<PathBuf> {
        self.description.template.as_ref().map(|file| self.path.join(file))
    }

    /// The projector's weights.
    pub fn projector(&self) -> Result<PathBuf, HubError> {
        hub::require_file(&self.path, PROJECTOR)
    }

    /// The adapter's folder, when there is an adapter.
    pub fn adapter(&self) -> Option<PathBuf> {
        Some(self.path.join(ADAPTER)).filter(|folder| folder.is_dir())
    }

    fn resolve(&self, locator: &str) -> Result<PathBuf, HubError> {
        if locator.starts_with(HUB) {
            return hub::resolve(locator);
        }
        let folder = self.path.join(locator);
        if folder.is_dir() { Ok(folder) } else { Err(HubError::NoFolder(folder)) }
    }
}

impl Description {
    /// Reads the text of a `model.toml`; the error says the line and, for an unknown key, the nearest known one.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let table: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let nearest = KEYS
                .into_iter()
                .max_by(|a, b| strsim::jaro_winkler(key, a).total_cmp(&strsim::jaro_winkler(key, b)));
            return Err(format!("unknown key `{key}`; did you mean `{}`?", nearest.unwrap_or_default()));
        }
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// As the text of a `model.toml`.
    pub fn to_toml(&self) -> Result<String, FolderError> {
        toml::to_string(self)
            .map_err(|error| FolderError::Description { path: DESCRIPTION.into(), why: error.to_string() })
    }
}

/// Makes `target` by letting `fill` write into an empty folder beside it, which then takes its name: a reader sees
/// the whole folder or none, and what was there before is replaced.
pub fn write_atomically<E: From<FolderError>>(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let io = |source| FolderError::Io { path: target.to_owned(), source };
    let name = target.file_name().ok_or_else(|| io(io::Error::other("is no name for a new folder")))?;
    let beside = |what: &str| {
        target.with_file_name(format!(".{}.{what}-{}", name.to_string_lossy(), std::process::id()))
    };
    let (fresh, old) = (beside("new"), beside("old"));
    let _ = fs::remove_dir_all(&fresh); // left behind by a killed process of the same number
    fs::create_dir_all(&fresh).map_err(io)?;
    if let Err(error) = fill(&fresh) {
        let _ = fs::remove_dir_all(&fresh);
        return Err(error);
    }
    if target.exists() {
        fs::rename(target, &old).map_err(io)?;
    }
    fs::rename(&fresh, target).map_err(io)?;
    let _ = fs::remove_dir_all(&old);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "qwen = \"../qwen\"\nclip = \"hub:openai/clip-vit-base-patch32\"\n";

    fn folder_with(description: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(DESCRIPTION), description).unwrap();
        folder
    }

    fn open(folder: &Path) -> Result<ModelFolder, FolderError> {
        ModelFolder::open(folder.to_str().unwrap())
    }

    #[test]
    fn two_keys_make_a_model_folder() {
        let folder = folder_with(MINIMAL);
        let model = open(folder.path()).unwrap();
        assert_eq!((model.description.image_pad_num, model.description.dtype), (None, Dtype::F32));
        assert_eq!(model.description.system, None);
        assert!(model.adapter().is_none() && model.template().is_none());
    }

    #[test]
    fn paths_are_relative_to_the_folder() {
        let parent = tempfile::tempdir().unwrap();
        let (folder, qwen) = (parent.path().join("model"), parent.path().join("qwen"));
        fs::create_dir(&folder).unwrap();
        fs::create_dir(&qwen).unwrap();
        fs::write(folder.join(DESCRIPTION), MINIMAL).unwrap();
        let model = open(&folder).unwrap();
        assert_eq!(model.qwen().unwrap().canonicalize().unwrap(), qwen.canonicalize().unwrap());
        assert_eq!(model.tokenizer().unwrap(), model.qwen().unwrap());
    }

    #[test]
    fn what_is_written_reads_back_equal() {
        let description = Description {
            qwen: "qwen".to_owned(),
            clip: "hub:openai/clip-vit-base-patch32".to_owned(),
            image_pad_num: Some(49),
            dtype: Dtype::Bf16,
            system: Some("You are a helpful assistant.\n\"quoted\"".to_owned()),
            tokenizer: None,
            template: None,
            trained: vec!["projector".to_owned(), "lora".to_owned()],
        };
        assert_eq!(Description::from_toml(&description.to_toml().unwrap()).unwrap(), description);
    }

    #[test]
    fn a_misspelt_key_is_answered_with_the_nearest() {
        let error = Description::from_toml(&format!("{MINIMAL}image_pads = 49\n")).unwrap_err();
        insta::assert_snapshot!(error, @"unknown key `image_pads`; did you mean `image_pad_num`?");
    }

    #[test]
    fn a_wrong_type_says_its_line() {
        let error = Description::from_toml(&format!("{MINIMAL}image_pad_num = \"49\"\n")).unwrap_err();
        assert!(error.contains("line 3") && error.contains("expected"), "{error}");
    }

    #[test]
    fn a_folder_without_description_says_so() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(open(folder.path()), Err(FolderError::NoDescription(_))));
    }

    #[test]
    fn a_failed_write_leaves_the_old_folder_and_no_rest() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("model");
        let fill = |text: &'static str| {
            move |folder: &Path| -> Result<(), FolderError> {
                fs::write(folder.join("file"), text).unwrap();
                if text.is_empty() { Err(FolderError::NoDescription(folder.to_owned())) } else { Ok(()) }
            }
        };
        write_atomically(&target, fill("one")).unwrap();
        write_atomically(&target, fill("two")).unwrap();
        assert!(write_atomically(&target, fill("")).is_err());
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "two");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}
