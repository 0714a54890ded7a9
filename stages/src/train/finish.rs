//! The folder that a training leaves behind: the model, what was done to it, and how that went.
//!
//! `training.json` is written last: a folder that has it is finished. The run may still be killed before it takes the folder
//! over; a later run then trains nothing.

use super::parameters::Train;
use super::progress::Timing;
use super::record::Record;
use super::setup::{CLIP, Origins, QWEN, failed, name_from};
use llavm_model::chat_template;
use llavm_model::folder::{DESCRIPTION, Description, ModelFolder};
use llavm_model::hub::HUB;
use llavm_model::lora::LoraConfig;
use llavm_model::save::{self, Parts};
use llavm_model::train::Part;
use llavm_model::vlm::Vlm;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{JobContext, Lineage};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs;
use std::path::Path;

const METRICS: &str = "metrics.parquet";
const TRAINING: &str = "training.json";
const HISTORY: &str = "history";

/// `training.json`.
#[derive(Debug, Serialize)]
pub struct Training<'a> {
    pub stage: String,
    pub init_from: Option<&'a str>,
    pub qwen: &'a str,
    pub clip: &'a str,
    pub seed: u64,
    /// All parameters that decide the result, defaults filled in, under Hugging Face's names.
    pub arguments: &'a Train,
    /// Rows of one epoch.
    pub rows: u64,
    pub steps: u64,
    pub epochs: f64,
    /// The step whose weights these are.
    pub best_step: Option<u64>,
    pub parameters: u64,
    pub trained_parameters: u64,
}

/// What is needed of a `training.json`.
#[derive(Deserialize)]
struct Named {
    stage: String,
}

/// What is written.
pub struct Output<'a> {
    pub context: &'a dyn JobContext,
    pub stage: &'a Train,
    pub origins: &'a Origins,
    pub lora: Option<LoraConfig>,
    pub record: &'a Record,
    pub training: Training<'a>,
    pub timing: Option<Timing>,
}

/// Whether a training has written all it has to write into `folder`.
pub fn is_finished(folder: &Path) -> bool {
    folder.join(TRAINING).is_file()
}

impl Output<'_> {
    /// Writes everything into the job's folder.
    pub fn write(&self, mut model: Vlm) -> Result<(), StageError> {
        let folder = self.context.output();
        sweep(folder)?;
        self.model(&mut model, folder)?;
        self.record.write(&folder.join(METRICS), self.training.rows)?;
        if let Some(timing) = &self.timing {
            json(&folder.join("timing.json"), timing)?;
        }
        self.history(folder)?;
        let (written, last) = (folder.join("training.json.new"), folder.join(TRAINING));
        json(&written, &self.training)?;
        fs::rename(&written, &last).map_err(|cause| StageError::io(&last, cause))
    }

    /// The model folder: made whole under another name, then moved file by file, since other files live here too.
    fn model(&self, model: &mut Vlm, folder: &Path) -> Result<(), StageError> {
        let made = folder.join("model");
        let written = |part: Part, origin: &Path| {
            let whole = self.stage.trains(part) || self.stage.scratch(part);
            whole.then(|| Some(origin.to_owned()))
        };
        let parts = Parts {
            lora: self.lora.clone(),
            qwen: written(Part::Language, &self.origins.qwen),
            clip: written(Part::Vision, &self.origins.clip),
        };
        let mut description = self.description(folder)?;
        for (name, is_written, held) in [
            (QWEN, parts.qwen.is_some(), &mut description.qwen),
            (CLIP, parts.clip.is_some(), &mut description.clip),
        ] {
            if let Some(from) = self.origins.held(name).filter(|_| !is_written) {
                copy_folder(&from, &folder.join(name))?;
                name.clone_into(held);
            }
        }
        description.tokenizer = self.tokenizer(folder)?;
        description.template = self.template(folder)?;
        save::model_folder(&made, model, description, &parts).map_err(failed)?;
        for name in [DESCRIPTION, "projector.safetensors", "adapter", QWEN, CLIP] {
            let (from, to) = (made.join(name), folder.join(name));
            if from.exists() {
                remove(&to)?;
                fs::rename(&from, &to).map_err(|cause| StageError::io(&to, cause))?;
            }
        }
        remove(&made)
    }

    fn description(&self, folder: &Path) -> Result<Description, StageError> {
        let base = self.origins.base.as_ref();
        let mut trained = base.map(|base| base.description.trained.clone()).unwrap_or_default();
        let parts = self.stage.trainable.iter().map(ToString::to_string);
        trained.extend(parts.filter(|part| !trained.contains(part)).collect::<Vec<_>>());
        Ok(Description {
            qwen: name_from(folder, &self.stage.qwen)?,
            clip: name_from(folder, &self.stage.clip)?,
            image_pad_num: None,
            dtype: self.stage.dtype,
            system: self.chat()?.and_then(|chat| chat.params["system"].as_str().map(str::to_owned)),
            tokenizer: None,
            template: None,
            trained,
        })
    }

    /// The stage that rendered the conversations.
    fn chat(&self) -> Result<Option<Lineage>, StageError> {
        Ok(self.context.lineage(0)?.into_iter().find(|stage| stage.kind == "chat-template"))
    }

    /// The tokenizer, when it is not the language model's: a hub name, or a copy.
    fn tokenizer(&self, folder: &Path) -> Result<Option<String>, StageError> {
        let Some(locator) = &self.stage.tokenizer else { return Ok(None) };
        if locator.starts_with(HUB) {
            return Ok(Some(locator.clone()));
        }
        let to = folder.join("tokenizer");
        remove(&to)?;
        fs::create_dir_all(&to).map_err(|cause| StageError::io(&to, cause))?;
        for file in chat_template::files(&self.origins.tokenizer) {
            copy(&file, &to.join(file.file_name().unwrap_or_default()))?;
        }
        Ok(Some("tokenizer".to_owned()))
    }

    /// The chat template, when it is not the tokenizer's.
    fn template(&self, folder: &Path) -> Result<Option<String>, StageError> {
        let Some(chat) = self.chat()? else { return Ok(None) };
        let file = chat.resources.iter().find(|resource| resource.name == "template");
        let text = match (chat.params["template"].as_str(), file) {
            (Some(text), _) => text.to_owned(),
            (None, Some(file)) => {
                fs::read_to_string(&file.path).map_err(|cause| StageError::io(&file.path, cause))?
            }
            (None, None) => return Ok(None),
        };
        write(&folder.join("chat_template.jinja"), text.as_bytes())?;
        Ok(Some("chat_template.jinja".to_owned()))
    }

    /// Metrics of the trainings that this one went on from, oldest first.
    fn history(&self, folder: &Path) -> Result<(), StageError> {
        let target = folder.join(HISTORY);
        remove(&target)?;
        let Some(base) = &self.origins.base else { return Ok(()) };
        let older = base.path.join(HISTORY);
        let mut count = 0;
        if older.is_dir() {
            copy_folder(&older, &target)?;
            count = fs::read_dir(&older).map_err(|cause| StageError::io(&older, cause))?.count();
        }
        let name = stage_name(base)?;
        let to = target.join(format!("{count:02}-{name}"));
        fs::create_dir_all(&to).map_err(|cause| StageError::io(&to, cause))?;
        for file in [METRICS, TRAINING] {
            copy(&base.path.join(file), &to.join(file))?;
        }
        Ok(())
    }
}

/// The stage that made a folder.
fn stage_name(base: &ModelFolder) -> Result<String, StageError> {
    let path = base.path.join(TRAINING);
    let text = fs::read(&path).map_err(|cause| StageError::io(&path, cause))?;
    let named: Named = serde_json::from_slice(&text)
        .map_err(|cause| StageError::new(format!("{}: {cause}", path.display())))?;
    Ok(named.stage)
}

fn json(path: &Path, value: &impl Serialize) -> Result<(), StageError> {
    let value: Value = serde_json::to_value(value).map_err(failed)?;
    write(path, format!("{value:#}\n").as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StageError> {
    fs::write(path, bytes).map_err(|cause| StageError::io(path, cause))
}

fn copy(from: &Path, to: &Path) -> Result<(), StageError> {
    fs::copy(from, to).map(|_| ()).map_err(|cause| StageError::io(from, cause))
}

/// Removes what a process that was killed had begun to write in `folder`; such names begin with a point.
pub fn sweep(folder: &Path) -> Result<(), StageError> {
    let failed = |cause| StageError::io(folder, cause);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file or folder that may not be there.
fn remove(path: &Path) -> Result<(), StageError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(StageError::io(path, cause)),
        _ => Ok(()),
    }
}

/// A copy of a folder and all below it, in place of what was there.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<(), StageError> {
    remove(to)?;
    fs::create_dir_all(to).map_err(|cause| StageError::io(to, cause))?;
    for entry in fs::read_dir(from).map_err(|cause| StageError::io(from, cause))? {
        let entry = entry.map_err(|cause| StageError::io(from, cause))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() { copy_folder(&path, &target)? } else { copy(&path, &target)? }
    }
    Ok(())
}
