//! What stages must agree on so that a model sees in training what it sees ever after.

use llavm_model::config::ClipVisionConfig;
use llavm_model::processor::files::tower_image;
use llavm_model::processor::image::ImageProcessor;
use llavm_model::{hub, load, tower};
use llavm_pipeline::stage::{Fact, Missing};
use serde_json::{Value, json};
use std::path::Path;

/// A fact that is its own description.
pub fn fact(name: &'static str, param: &'static str, value: &str) -> Fact {
    Fact {
        name,
        param,
        value: value.to_owned(),
        shown: value.to_owned(),
        help: format!("Write the same `{param}` in both."),
    }
}

/// How many tokens an image takes.
pub fn image_tokens(count: usize, param: &'static str) -> Fact {
    Fact {
        name: "the tokens of an image",
        param,
        value: count.to_string(),
        shown: format!("{count} tokens an image"),
        help: "`count` of image-pads must be the patches of the vision tower; leave it out and name the tower with \
               `vision`."
            .to_owned(),
    }
}

/// The side of an image.
pub fn image_size(size: usize, param: &'static str) -> Fact {
    Fact {
        name: "the size of an image",
        param,
        value: size.to_string(),
        shown: format!("{size} × {size} pixels"),
        help: "`size` of decode-resize must be the `image_size` of the vision tower.".to_owned(),
    }
}

/// What a vision tower says of images; nothing when it is not there.
pub fn tower(clip: &str, param: &'static str) -> Vec<Fact> {
    let Some(config) = vision_config(clip) else { return Vec::new() };
    let image = hub::resolve(clip).ok().and_then(|folder| tower_image(&folder).ok());
    let sizes = [image_tokens(config.num_patches(), param), image_size(config.image_size, param)];
    let asked = image.iter().flat_map(asked).map(|fact| Fact { param, ..fact });
    sizes.into_iter().chain(asked).collect()
}

/// What a vision tower asks for in preparing images, beside their size: what decode-resize does unless it is told otherwise.
pub fn asked(image: &ImageProcessor) -> [Fact; 3] {
    let asked = |name, param, value: Value| Fact {
        help: format!(
            "The tower's preprocessor_config.json asks for it. Name the tower in decode-resize (`vision = …`), or write the \
             `{param}` you want there."
        ),
        ..fact(name, param, &value.to_string())
    };
    [
        asked(
            "the resizing that the vision tower asks for",
            "resize_to",
            json!(image.resize_to.unwrap_or(image.size)),
        ),
        asked("the interpolation that the vision tower asks for", "filter", json!(image.filter)),
        asked("the crop that the vision tower asks for", "crop", json!(image.crop)),
    ]
}

/// The configuration of the vision tower that `locator` names; `None` when it is not there.
pub fn vision_config(locator: &str) -> Option<ClipVisionConfig> {
    load::clip_config(&hub::resolve(locator).ok()?).ok()
}

/// The vision tower that `locator` names, as far as a glance shows it: its configuration, and the names and sizes of its weights.
/// Towers that only look alike are told apart by content when the training begins.
pub fn vision_tower(locator: &str, param: &'static str) -> Option<Fact> {
    let folder = hub::resolve(locator).ok()?;
    let mut look = blake3::Hasher::new();
    for path in tower::files(&folder).ok()? {
        look.update(path.file_name()?.as_encoded_bytes());
        if path.extension().is_some_and(|extension| extension == "json") {
            look.update(&std::fs::read(&path).ok()?);
        } else {
            look.update(&path.metadata().ok()?.len().to_le_bytes());
        }
    }
    Some(Fact {
        name: "the vision tower",
        param,
        value: look.finalize().to_hex().to_string(),
        shown: format!("the tower in {}", folder.display()),
        help: "Stored features are of use only to the tower that made them: name the same `clip` in both."
            .to_owned(),
    })
}

/// The advice for a user whose vision tower has no configuration.
pub fn missing_tower(locator: Option<&str>, param: &'static str) -> Vec<Missing> {
    let error = locator.and_then(|locator| hub::resolve_file(locator, "config.json", &[]).err());
    let missing = error.map(|error| Missing {
        param,
        text: error.to_string(),
        help: "Name a folder, or `hub:ORG/NAME` and download it with `llavm fetch`.".to_owned(),
    });
    missing.into_iter().collect()
}

/// The tokenizer in `folder`, by content.
pub fn tokenizer(folder: &Path, param: &'static str) -> Option<Fact> {
    let bytes = std::fs::read(folder.join("tokenizer.json")).ok()?;
    Some(Fact {
        name: "the tokenizer",
        param,
        value: blake3::hash(&bytes).to_hex().to_string(),
        shown: format!("the tokenizer in {}", folder.display()),
        help: "Ids of one tokenizer mean nothing to another: name the same folder in all stages.".to_owned(),
    })
}
