//! Model folders: what training writes and every command reads.
//!
//! ```text
//! model.toml               qwen, clip, image_pad_num, dtype, system, trained, [processor], [digests]
//! projector.safetensors    dense1.weight [out, in], dense1.bias, dense2.weight, dense2.bias
//! adapter/                 PEFT files, when LoRA was trained
//! qwen/, clip/             towers that were trained or made from scratch, and small ones
//! tokenizer.json, …        the processor under Transformers' names (processor/files.rs)
//! towers.toml              where large towers were that came from a folder; no part of the content
//! ```
//!
//! The folder is self-contained: towers lie in it, are named `hub:ORG/NAME`, a repository in the Hugging Face cache, or are
//! too large to be copied. These are looked for where they were when the model was trained, and `[digests]` says what must
//! be found there; moved into the folder as `qwen/` or `clip/`, they are part of it.
//!
//! A LLaVA of transformers (`LlavaForConditionalGeneration` with its processor) is a model folder as well: its `config.json`
//! stands for `model.toml`, and its weights hold both towers and the projector.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{Dtype, LlavaConfig};
use crate::hub::{self, HubError, is_repository};
use crate::processor::description::{ProcessorDescription, TOKENIZER};
use crate::tower::{self, TowerError};

/// The description in every model folder.
pub const DESCRIPTION: &str = "model.toml";
/// The projector's weights.
pub const PROJECTOR: &str = "projector.safetensors";
/// The folder of the PEFT adapter.
pub const ADAPTER: &str = "adapter";
/// Where large towers were, as a table of `qwen` and `clip`.
pub const TOWERS: &str = "towers.toml";
/// The language model, as `model.toml` names it when the folder holds it, and its folder.
pub const QWEN: &str = "qwen";
/// The vision tower, likewise.
pub const CLIP: &str = "clip";
/// A tower whose folder is the model folder itself: that of a LLaVA.
const WHOLE: &str = ".";

/// `model.toml`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The language model: a folder, relative to this one, or `hub:ORG/NAME[@REV]`.
    pub qwen: String,
    /// The vision tower, likewise.
    pub clip: String,
    /// Image pads per image, which is the number of the tower's patches. Default: the tower's.
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
    /// Placement of images, thinking, end of answers and the like. Default: as the reference recipe has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<ProcessorDescription>,
    /// Content digests (`tower.rs`) of towers that no training of this model changed, by `qwen` and `clip`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digests: BTreeMap<String, String>,
}

/// The keys of `model.toml`.
const KEYS: [&str; 10] = [
    "qwen",
    "clip",
    "image_pad_num",
    "dtype",
    "system",
    "tokenizer",
    "template",
    "trained",
    "processor",
    "digests",
];

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
    /// A tower that was too large to be copied is not where it was.
    #[error("{}: the tower `{name}` is neither in this folder{was}. Copy it to {}.", model.display(), model.join(name).display())]
    NoTower {
        /// The model folder.
        model: PathBuf,
        /// `qwen` or `clip`.
        name: String,
        /// Where else it was looked for.
        was: String,
    },
    /// A tower changed since the model was trained.
    #[error("the tower in {} is another one than the model in {} was trained with: its content digest differs. Train again, or bring the tower back.", tower.display(), model.display())]
    OtherTower {
        /// The model folder.
        model: PathBuf,
        /// The tower's folder.
        tower: PathBuf,
    },
    /// A tower cannot be read.
    #[error(transparent)]
    Tower(#[from] TowerError),
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
            Err(error) if error.kind() == io::ErrorKind::NotFound && LlavaConfig::is_in(&folder) => {
                let description = Description::of_llava(saved_dtype(&folder));
                return Ok(Self { path: folder, description });
            }
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
    pub fn qwen(&self) -> Result<PathBuf, FolderError> {
        self.tower(QWEN, &self.description.qwen)
    }

    /// The folder of the vision tower.
    pub fn clip(&self) -> Result<PathBuf, FolderError> {
        self.tower(CLIP, &self.description.clip)
    }

    /// The tower `name` in this folder itself.
    pub fn inside(&self, name: &str) -> Option<PathBuf> {
        let described = if name == QWEN { &self.description.qwen } else { &self.description.clip };
        if described == WHOLE {
            return Some(self.path.clone());
        }
        (described == name).then(|| self.path.join(name)).filter(|folder| folder.is_dir())
    }

    /// Whether the folder is a LLaVA of transformers, not one that a training wrote.
    pub fn is_llava(&self) -> bool {
        self.description.qwen == WHOLE
    }

    /// The tower `name` as this model's trainings made or changed it; `None` where it is somebody else's.
    pub fn own(&self, name: &str) -> Option<PathBuf> {
        self.inside(name).filter(|_| !self.description.digests.contains_key(name))
    }

    /// An error when a tower is another one than when the model was trained.
    pub fn check_towers(&self) -> Result<(), FolderError> {
        for (name, expected) in &self.description.digests {
            let folder = if name == QWEN { self.qwen()? } else { self.clip()? };
            if tower::digest(&folder)? != *expected {
                return Err(FolderError::OtherTower { model: self.path.clone(), tower: folder });
            }
        }
        Ok(())
    }

    /// The folder of the tokenizer: this one, if it has a tokenizer.
    pub fn tokenizer(&self) -> Result<PathBuf, FolderError> {
        match &self.description.tokenizer {
            Some(locator) => Ok(self.resolve(locator)?),
            None if self.path.join(TOKENIZER[0]).is_file() => Ok(self.path.clone()),
            None => self.qwen(),
        }
    }

    /// The file of the chat template, when it is not beside the tokenizer.
    pub fn template(&self) -> Option<PathBuf> {
        self.description.template.as_ref().map(|file| self.path.join(file))
    }

    fn tower(&self, name: &str, described: &str) -> Result<PathBuf, FolderError> {
        if described != name || self.path.join(name).is_dir() {
            return Ok(self.resolve(described)?);
        }
        let missing = |was: Option<PathBuf>| FolderError::NoTower {
            model: self.path.clone(),
            name: name.to_owned(),
            was: was.map(|was| format!(", nor in {}, where it was", was.display())).unwrap_or_default(),
        };
        let text = fs::read_to_string(self.path.join(TOWERS)).map_err(|_| missing(None))?;
        let places: BTreeMap<String, PathBuf> = toml::from_str(&text).unwrap_or_default();
        match places.get(name) {
            Some(place) if place.is_dir() => Ok(place.clone()),
            place => Err(missing(place.cloned())),
        }
    }

    /// The projector's weights: a file, or the folder of a LLaVA.
    pub fn projector(&self) -> Result<PathBuf, HubError> {
        if self.is_llava() {
            return Ok(self.path.clone());
        }
        hub::require_file(&self.path, PROJECTOR)
    }

    /// The adapter's folder, when there is an adapter.
    pub fn adapter(&self) -> Option<PathBuf> {
        Some(self.path.join(ADAPTER)).filter(|folder| folder.is_dir())
    }

    fn resolve(&self, locator: &str) -> Result<PathBuf, HubError> {
        if is_repository(locator) {
            return hub::resolve(locator);
        }
        let folder = self.path.join(locator);
        if folder.is_dir() { Ok(folder) } else { Err(HubError::NoFolder(folder)) }
    }
}

impl Description {
    /// Of a LLaVA of transformers; its other files say the rest.
    fn of_llava(dtype: Dtype) -> Self {
        Self {
            qwen: WHOLE.to_owned(),
            clip: WHOLE.to_owned(),
            image_pad_num: None,
            dtype,
            system: None,
            tokenizer: None,
            template: None,
            trained: Vec::new(),
            processor: None,
            digests: BTreeMap::new(),
        }
    }

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

/// What a LLaVA was saved in; f32 where its configuration is not read, which whoever loads the model tells.
fn saved_dtype(folder: &Path) -> Dtype {
    let text = fs::read_to_string(folder.join("config.json")).unwrap_or_default();
    LlavaConfig::from_json(&text).map(|llava| llava.text.dtype).unwrap_or_default()
}

/// Writes down where the towers are that `folder` does not hold, by `qwen` and `clip`; nothing when it holds all.
pub fn write_places(folder: &Path, places: &BTreeMap<String, PathBuf>) -> Result<(), FolderError> {
    if places.is_empty() {
        return Ok(());
    }
    let path = folder.join(TOWERS);
    let text = toml::to_string(places)
        .map_err(|error| FolderError::Description { path: path.clone(), why: error.to_string() })?;
    fs::write(&path, text).map_err(|source| FolderError::Io { path, source })
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
    sync(&fresh).map_err(io)?;
    if target.exists() {
        fs::rename(target, &old).map_err(io)?;
    }
    fs::rename(&fresh, target).map_err(io)?;
    let _ = fs::remove_dir_all(&old);
    Ok(())
}

/// Waits until a folder and all below it are on the disk.
fn sync(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { sync(&path)? } else { fs::File::open(&path)?.sync_all()? }
    }
    fs::File::open(folder)?.sync_all()
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
            processor: Some(ProcessorDescription {
                enable_thinking: true,
                ..ProcessorDescription::default()
            }),
            digests: [("clip".to_owned(), "00".to_owned())].into(),
        };
        assert_eq!(Description::from_toml(&description.to_toml().unwrap()).unwrap(), description);
    }

    #[test]
    fn a_llava_computes_in_what_it_was_saved_in() {
        let saved = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llava/saved/config.json");
        let text = fs::read_to_string(saved).unwrap();
        for (name, dtype) in [("float32", Dtype::F32), ("bfloat16", Dtype::Bf16)] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("config.json"), text.replace("float32", name)).unwrap();
            assert_eq!(open(folder.path()).unwrap().description.dtype, dtype);
        }
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
