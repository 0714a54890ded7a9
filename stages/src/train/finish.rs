//! The folder that a training leaves behind: the model, what was done to it, and how that went.
//!
//! `training.json` is written last: a folder that has it is finished. The run may still be killed before it takes the folder
//! over; a later run then trains nothing.

use super::parameters::Train;
use super::processor::Made;
use super::progress::Timing;
use super::record::Record;
use super::setup::{Origins, failed};
use crate::model_card::ORIGIN;
use llavm_model::device::Device;
use llavm_model::folder::{self, ADAPTER, CLIP, DESCRIPTION, Description, ModelFolder, PROJECTOR, QWEN};
use llavm_model::hub::is_repository;
use llavm_model::load;
use llavm_model::lora::LoraConfig;
use llavm_model::processor::files::{self, GENERATION, ProcessorDescription, Sources};
use llavm_model::save::{self, Parts};
use llavm_model::tower;
use llavm_model::train::Part;
use llavm_model::vlm::Vlm;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::JobContext;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const METRICS: &str = "metrics.parquet";
const TRAINING: &str = "training.json";
const HISTORY: &str = "history";

/// Most bytes of a tower that is copied into the model folder.
const COPIED: u64 = 64 << 20;

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
    pub made: &'a Made,
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
        let (origin, inputs) = (self.context.origin()?, self.context.inputs_read()?);
        json(&folder.join(ORIGIN), &serde_json::json!({ "origin": origin, "inputs": inputs }))?;
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
        let mut description = self.description();
        let mut elsewhere = BTreeMap::new();
        for (name, is_written) in [(QWEN, parts.qwen.is_some()), (CLIP, parts.clip.is_some())] {
            if !is_written {
                self.tower(name, folder, &mut description, &mut elsewhere)?;
            }
        }
        save::model_folder(&made, model, description, &parts).map_err(failed)?;
        for name in [DESCRIPTION, PROJECTOR, ADAPTER, QWEN, CLIP] {
            let (from, to) = (made.join(name), folder.join(name));
            if from.exists() {
                remove(&to)?;
                fs::rename(&from, &to).map_err(|cause| StageError::io(&to, cause))?;
            }
        }
        folder::write_places(folder, &elsewhere).map_err(failed)?;
        self.processor(folder)?;
        remove(&made)
    }

    /// A tower that this training did not change: its own ones and small ones are copied, of others their digest is kept.
    fn tower(
        &self,
        name: &str,
        folder: &Path,
        description: &mut Description,
        elsewhere: &mut BTreeMap<String, PathBuf>,
    ) -> Result<(), StageError> {
        let (from, locator, described) = match name {
            QWEN => (&self.origins.qwen, &self.stage.qwen, &mut description.qwen),
            _ => (&self.origins.clip, &self.stage.clip, &mut description.clip),
        };
        let base = self.origins.base.as_ref();
        if let Some(own) = base.and_then(|base| base.own(name)) {
            name.clone_into(described);
            let to = folder.join(name);
            return match base {
                Some(base) if base.is_llava() => tower_of_llava(&own, name, &to),
                _ => copy_folder(&own, &to),
            };
        }
        let digest = tower::digest(from).map_err(failed)?;
        self.same_tower(name, &digest)?;
        description.digests.insert(name.to_owned(), digest);
        if is_repository(locator) {
            locator.clone_into(described);
        } else if tower::size(from).map_err(failed)? <= COPIED {
            name.clone_into(described);
            copy_tower(from, &folder.join(name))?;
        } else {
            name.clone_into(described);
            let place = from.canonicalize().map_err(|cause| StageError::io(from, cause))?;
            elsewhere.insert(name.to_owned(), place);
        }
        Ok(())
    }

    /// A projector or adapter goes on only with the towers that it was trained with.
    fn same_tower(&self, name: &str, digest: &str) -> Result<(), StageError> {
        let before = self.origins.base.as_ref().and_then(|base| base.description.digests.get(name));
        if before.is_none_or(|before| before == digest) {
            return Ok(());
        }
        let text = format!("`{name}` is another model than the one that `init_from` was trained with");
        Err(StageError::new(text).help(format!("Name the same `{name}` in both stages.")))
    }

    fn description(&self) -> Description {
        let base = self.origins.base.as_ref();
        let mut trained = base.map(|base| base.description.trained.clone()).unwrap_or_default();
        let parts = self.stage.trainable.iter().map(ToString::to_string);
        trained.extend(parts.filter(|part| !trained.contains(part)).collect::<Vec<_>>());
        let settings = self.made.processor.settings();
        Description {
            qwen: QWEN.to_owned(),
            clip: CLIP.to_owned(),
            image_pad_num: Some(settings.image_tokens.count),
            dtype: self.stage.dtype,
            system: settings.rendering.system.clone(),
            tokenizer: None,
            template: None,
            trained,
            processor: Some(ProcessorDescription::of(&settings)),
            digests: BTreeMap::new(),
        }
    }

    /// What the model's input is made with.
    fn processor(&self, folder: &Path) -> Result<(), StageError> {
        let sources = Sources {
            tokenizer: &self.origins.tokenizer,
            template: self.made.processor.template().source(),
            qwen: &self.origins.qwen,
            patch_size: self.made.patch_size,
        };
        files::write(folder, &self.made.processor.settings(), &sources).map_err(failed)
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
        if !base.path.join(TRAINING).is_file() {
            return Ok(()); // a folder that no training wrote
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

/// Copies the tower `name` out of the LLaVA in `from` into the folder `to`, in the type that the LLaVA says it was saved in.
fn tower_of_llava(from: &Path, name: &str, to: &Path) -> Result<(), StageError> {
    remove(to)?;
    fs::create_dir_all(to).map_err(|cause| StageError::io(to, cause))?;
    let (device, dtype) = (Device::flex(), load::qwen3_config(from).map_err(failed)?.dtype);
    if name == QWEN {
        let mut qwen = load::qwen3(from, &device, dtype).map_err(failed)?;
        return save::qwen3(&mut qwen, to, dtype, Some(from)).map_err(failed);
    }
    let mut clip = load::clip(from, &device, dtype).map_err(failed)?;
    save::clip(&mut clip, to, dtype, Some(from)).map_err(failed)
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

/// Copies what a tower is made of; other files of its folder stay where they are.
fn copy_tower(from: &Path, to: &Path) -> Result<(), StageError> {
    remove(to)?;
    fs::create_dir_all(to).map_err(|cause| StageError::io(to, cause))?;
    let generation = Some(from.join(GENERATION)).filter(|path| path.is_file());
    for file in tower::files(from).map_err(failed)?.into_iter().chain(generation) {
        copy(&file, &to.join(file.file_name().unwrap_or_default()))?;
    }
    Ok(())
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
