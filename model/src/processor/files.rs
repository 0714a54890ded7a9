//! A processor in the files of a model folder, under Transformers' names.
//!
//! | file | what |
//! |---|---|
//! | `tokenizer.json`, `tokenizer_config.json` | the tokenizer |
//! | `chat_template.jinja` | the chat template that was trained |
//! | `preprocessor_config.json` | image preprocessing (`CLIPImageProcessor`) |
//! | `processor_config.json` | the image token, and the patches it stands for (`LlavaProcessor`) |
//! | `generation_config.json` | the tokens that end an answer |
//! | `model.toml` | the rest: `system`, `image_pad_num`, `[processor]` |

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::image::ImageProcessor;
use super::image_tokens::ImageTokens;
use super::llava::Habits;
use super::render::Rendering;
use super::{Processor, Settings};
use crate::chat_template::{self, ChatTemplate};
use crate::clip::FeatureSelect;
use crate::config::ClipVisionConfig;
use crate::folder::{DESCRIPTION, ModelFolder};
use crate::load::{self, LoadError};
use crate::tokenizer::Tokenizer;

pub use super::description::{
    GENERATION, IMAGE_TOKEN, PLACEHOLDER, PREPROCESSOR, PROCESSOR, ProcessorDescription, TEMPLATE, TOKENIZER,
};

/// All files that [`write`] writes.
pub const ALL: [&str; 6] = [TOKENIZER[0], TOKENIZER[1], TEMPLATE, PREPROCESSOR, PROCESSOR, GENERATION];

impl Processor {
    /// The processor of a model folder. What a folder made by hand leaves out follows from its towers.
    pub fn load(folder: &ModelFolder) -> Result<Self, LoadError> {
        let (qwen, clip) = (folder.qwen()?, folder.clip()?);
        let tokenizer_folder = folder.tokenizer()?;
        let content = |why: String| LoadError::Content { path: tokenizer_folder.clone(), why };
        let template = match folder.template() {
            Some(path) => {
                let source = fs::read_to_string(&path).map_err(|source| LoadError::Io { path, source })?;
                ChatTemplate::with_source(&tokenizer_folder, source)
            }
            None => ChatTemplate::from_folder(&tokenizer_folder),
        };
        let template = template.map_err(|error| content(error.to_string()))?;
        let tokenizer =
            Tokenizer::from_folder(&tokenizer_folder).map_err(|error| content(error.to_string()))?;
        let mut eos = load::eos_ids(&folder.path)?;
        eos.extend(load::eos_ids(&qwen)?);
        let mut settings = settings(folder, &load::clip_config(&clip)?, &clip)?;
        if let Some(llava) = load::llava_config(&folder.path)?.filter(|_| folder.is_llava()) {
            adopt_llava(&mut settings, llava.image_token_id, &template, &tokenizer)
                .map_err(|why| LoadError::Content { path: folder.path.clone(), why })?;
        }
        Self::new(settings, template, tokenizer, &eos).map_err(|error| content(error.to_string()))
    }
}

/// The settings that a model folder holds.
fn settings(folder: &ModelFolder, vision: &ClipVisionConfig, clip: &Path) -> Result<Settings, LoadError> {
    let own = folder.description.processor.clone().unwrap_or_default();
    let token = load::optional_json(&folder.path, PROCESSOR)?
        .and_then(|config| config.get("image_token").and_then(Value::as_str).map(str::to_owned));
    Ok(Settings {
        rendering: Rendering {
            system: folder.description.system.clone(),
            enable_thinking: own.enable_thinking,
            loss_on: own.loss_on,
            answer_end: own.answer_end,
        },
        image_tokens: ImageTokens {
            token: token.unwrap_or_else(|| IMAGE_TOKEN.to_owned()),
            count: count(folder, vision)?,
            placeholder: own.placeholder,
            placement: own.placement,
            separator: own.separator,
        },
        special_in_text: own.special_in_text,
        image: image(&folder.path, vision)?.map_or_else(|| tower_image(clip), Ok)?,
    })
}

/// What only the chat template of a LLaVA says: where images go, and whether it thinks by default.
fn adopt_llava(
    settings: &mut Settings,
    image_token_id: u32,
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
) -> Result<(), String> {
    let token = &settings.image_tokens.token;
    if tokenizer.token_id(token) != Some(image_token_id) {
        return Err(format!(
            "config.json takes the token {image_token_id} for images, processor_config.json `{token}`, which is another one."
        ));
    }
    let habits = Habits::of(template, token).map_err(|error| format!("{error}."))?;
    settings.image_tokens.placement = habits.placement;
    settings.image_tokens.separator = habits.separator;
    settings.rendering.enable_thinking = habits.enable_thinking;
    Ok(())
}

/// Image tokens of an image, which must be the patches of the tower.
fn count(folder: &ModelFolder, vision: &ClipVisionConfig) -> Result<usize, LoadError> {
    let patches = vision.num_patches();
    match folder.description.image_pad_num {
        Some(count) if count != patches => Err(LoadError::Content {
            path: folder.path.join(DESCRIPTION),
            why: format!(
                "image_pad_num = {count}, but the vision tower makes {patches} patches of an image."
            ),
        }),
        _ => Ok(patches),
    }
}

/// The image preprocessing that `folder` asks for; `None` when it says nothing of it.
fn image(folder: &Path, vision: &ClipVisionConfig) -> Result<Option<ImageProcessor>, LoadError> {
    let Some((path, config)) = preprocessor_config(folder)? else { return Ok(None) };
    let image = ImageProcessor::from_preprocessor_config(&config, vision.image_size as u32);
    let image = image.map_err(|error| LoadError::Content { path: path.clone(), why: format!("{error}.") })?;
    if image.size as usize != vision.image_size {
        let why = format!(
            "asks for images of {0} × {0} pixels, but the vision tower takes {1} × {1}.",
            image.size, vision.image_size
        );
        return Err(LoadError::Content { path, why });
    }
    Ok(Some(image))
}

/// `preprocessor_config.json`, or what transformers 5 writes in its place: a part of `processor_config.json`. With its file.
fn preprocessor_config(folder: &Path) -> Result<Option<(PathBuf, Value)>, LoadError> {
    if let Some(config) = load::optional_json(folder, PREPROCESSOR)? {
        return Ok(Some((folder.join(PREPROCESSOR), config)));
    }
    let whole = load::optional_json(folder, PROCESSOR)?;
    let part = whole.and_then(|whole| whole.get("image_processor").cloned());
    Ok(part.map(|part| (folder.join(PROCESSOR), part)))
}

/// The image preprocessing that the vision tower in `folder` was trained with.
pub fn tower_image(folder: &Path) -> Result<ImageProcessor, LoadError> {
    let vision = load::clip_config(folder)?;
    let default = ImageProcessor { size: vision.image_size as u32, ..ImageProcessor::default() };
    Ok(image(folder, &vision)?.unwrap_or(default))
}

/// What goes into a model folder besides the settings.
pub struct Sources<'a> {
    /// The folder of the tokenizer.
    pub tokenizer: &'a Path,
    /// The text of the chat template.
    pub template: &'a str,
    /// The folder of the language model, for its `generation_config.json`.
    pub qwen: &'a Path,
    /// The side of the tower's patches, in pixels.
    pub patch_size: usize,
}

/// Writes the processor's files into `folder`; `model.toml` is the caller's.
pub fn write(folder: &Path, settings: &Settings, sources: &Sources<'_>) -> Result<(), LoadError> {
    for file in chat_template::files(sources.tokenizer) {
        let name = file.file_name().unwrap_or_default();
        if TOKENIZER.iter().any(|known| name == *known) {
            let path = folder.join(name);
            fs::copy(&file, &path).map_err(|source| LoadError::Io { path, source })?;
        }
    }
    write_file(folder, TEMPLATE, sources.template)?;
    write_json(folder, PREPROCESSOR, &settings.image.to_preprocessor_config())?;
    write_json(folder, PROCESSOR, &processor_config(settings, sources.patch_size))?;
    write_json(folder, GENERATION, &generation_config(sources)?)
}

/// As `LlavaProcessor` reads it: its count of image tokens is that of patches, the class token dropped.
fn processor_config(settings: &Settings, patch_size: usize) -> Value {
    json!({
        "processor_class": "LlavaProcessor",
        "image_token": settings.image_tokens.token,
        "patch_size": patch_size,
        "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": FeatureSelect::default().vision_feature_select_strategy,
    })
}

/// The language model's own, ending at every token that ends an answer.
fn generation_config(sources: &Sources<'_>) -> Result<Value, LoadError> {
    let mut config = load::optional_json(sources.qwen, GENERATION)?.unwrap_or_else(|| json!({}));
    let tokenizer = Tokenizer::from_folder(sources.tokenizer)
        .map_err(|error| LoadError::Content { path: sources.tokenizer.to_owned(), why: error.to_string() })?;
    // The end that was trained stands first.
    let mut ends: Vec<u32> = tokenizer.eos().map(|token| token.id).into_iter().collect();
    for id in load::eos_ids(sources.qwen)? {
        if !ends.contains(&id) {
            ends.push(id);
        }
    }
    if let Some(fields) = config.as_object_mut() {
        fields.insert("eos_token_id".to_owned(), json!(ends));
        if let Some(pad) = tokenizer.pad() {
            fields.insert("pad_token_id".to_owned(), json!(pad.id));
        }
    }
    Ok(config)
}

fn write_json(folder: &Path, name: &str, value: &Value) -> Result<(), LoadError> {
    write_file(folder, name, &format!("{value:#}\n"))
}

fn write_file(folder: &Path, name: &str, text: &str) -> Result<(), LoadError> {
    let path: PathBuf = folder.join(name);
    fs::write(&path, text).map_err(|source| LoadError::Io { path, source })
}
