//! The processor of the model that is trained: rendering and images as the stages behind the shards have them.

use super::feed::Units;
use super::setup::{Origins, failed};
use crate::chat_template::ChatSettings;
use crate::encode_images::{FEATURES, FeatureSettings};
use crate::settings;
use llavm_model::chat_template as hf;
use llavm_model::clip::FeatureSelect;
use llavm_model::load;
use llavm_model::processor::files::{IMAGE_TOKEN, PLACEHOLDER, tower_image};
use llavm_model::processor::image_tokens::{ImageTokens, Placement, line_break};
use llavm_model::processor::{Processor, Settings};
use llavm_model::tokenizer::Tokenizer;
use llavm_model::tower;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{self, JobContext};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// Rows whose questions are looked at for where images stand in them.
const OBSERVED: usize = 10_000;

/// What the model folder will say, and the processor itself.
pub struct Made {
    pub processor: Processor,
    pub patch_size: usize,
}

impl Made {
    /// Reads the settings behind input `input`.
    pub fn of(
        context: &dyn JobContext,
        input: usize,
        origins: &Origins,
        units: &Units<'_>,
    ) -> Result<Self, StageError> {
        let all = context.settings(input)?;
        let vision = load::clip_config(&origins.clip).map_err(failed)?;
        let chats: Vec<ChatSettings> = read(&all, settings::RENDERING)?;
        let own_template = || hf::ChatTemplate::from_folder(&origins.tokenizer);
        let template = match chats.first() {
            Some(chat) => hf::ChatTemplate::with_source(&origins.tokenizer, chat.template.clone()),
            None => own_template(),
        };
        let images = tower_image(&origins.clip).map_err(failed)?;
        let settings = Settings {
            // Stages that render otherwise than one another are refused with the manifest.
            rendering: chats.first().map(|chat| chat.rendering.clone()).unwrap_or_default(),
            image_tokens: image_tokens(first(&all, settings::IMAGE_TOKENS)?, vision.num_patches(), units)?,
            special_in_text: first(&all, settings::SPECIAL_TOKENS)?.unwrap_or_default(),
            image: first(&all, settings::IMAGES)?.unwrap_or_else(|| images.clone()),
        };
        check(&settings, vision.num_patches(), vision.image_size)?;
        let settings = Settings {
            // The tower's own, whatever the stage that made the pixels knew of it.
            image: llavm_model::processor::image::ImageProcessor { norm: images.norm, ..settings.image },
            ..settings
        };
        let tokenizer = Tokenizer::from_folder(&origins.tokenizer).map_err(failed)?;
        let eos = load::eos_ids(&origins.qwen).map_err(failed)?;
        let processor = Processor::new(settings, template.map_err(failed)?, tokenizer, &eos);
        Ok(Self { processor: processor.map_err(failed)?, patch_size: vision.patch_size })
    }
}

/// Rows of a data set that places its images itself say where an image goes that is shown with a question. What `missing` of
/// image-pads says decides only where it decided in training.
fn image_tokens(
    given: Option<ImageTokens>,
    patches: usize,
    units: &Units<'_>,
) -> Result<ImageTokens, StageError> {
    let Some(mut tokens) = given else {
        return Ok(ImageTokens {
            token: IMAGE_TOKEN.to_owned(),
            count: patches,
            placeholder: PLACEHOLDER.to_owned(),
            placement: Placement::default(),
            separator: line_break(),
        });
    };
    if tokens.placement != Placement::AsWritten
        && let Some(unit) = units.get(0)?
        && let Some(questions) = unit.train.first_questions(OBSERVED)?
        && let Some(observed) = tokens.observed(questions.iter().map(String::as_str))
    {
        (tokens.placement, tokens.separator) = observed;
    }
    Ok(tokens)
}

fn check(settings: &Settings, patches: usize, size: usize) -> Result<(), StageError> {
    let count = settings.image_tokens.count;
    if count != patches {
        let text =
            format!("{count} image tokens stand for an image, but the vision tower makes {patches} patches");
        return Err(StageError::new(text).help(format!("Set `count` of image-pads to {patches}.")));
    }
    if settings.image.size as usize != size {
        let text = format!(
            "images are {0} × {0} pixels, but the vision tower takes {size} × {size}",
            settings.image.size
        );
        return Err(StageError::new(text).help(format!("Set `size` of decode-resize to {size}.")));
    }
    Ok(())
}

/// All that are about one thing.
fn read<T: DeserializeOwned>(all: &[stage::Settings], what: &str) -> Result<Vec<T>, StageError> {
    let own = all.iter().filter(|settings| settings.what == what);
    own.map(|settings| serde_json::from_value(settings.value.clone()).map_err(failed)).collect()
}

fn first<T: DeserializeOwned>(all: &[stage::Settings], what: &str) -> Result<Option<T>, StageError> {
    Ok(read(all, what)?.into_iter().next())
}

/// Features must be what the tower will make of images when the model answers: of the same content, out of the same layer.
pub fn check_features(context: &dyn JobContext, input: usize, origins: &Origins) -> Result<(), StageError> {
    for features in read::<FeatureSettings>(&context.settings(input)?, settings::FEATURES)? {
        same_states(&features.select)?;
    }
    let own: BTreeMap<String, String> = digests(origins)?;
    for stage in context.lineage(input)?.iter().filter(|stage| stage.makes(FEATURES)) {
        if stage.resources != own {
            let text = format!(
                "the features of `{}` were made by another vision tower than the one in {}",
                stage.name,
                origins.clip.display()
            );
            return Err(StageError::new(text).help(
                "Name the same `clip` in both stages. A tower that was trained itself needs pixels: leave the \
                 encode-images stage out of the shards.",
            ));
        }
    }
    Ok(())
}

fn same_states(made: &FeatureSelect) -> Result<(), StageError> {
    let own = FeatureSelect::default();
    if *made == own {
        return Ok(());
    }
    let said = |select: &FeatureSelect| {
        format!("layer {} ({})", select.vision_feature_layer, select.vision_feature_select_strategy)
    };
    Err(StageError::new(format!("the features are those of {}, the model takes {}", said(made), said(&own))))
}

/// The content of the vision tower's files, by name.
fn digests(origins: &Origins) -> Result<BTreeMap<String, String>, StageError> {
    let files = tower::files(&origins.clip).map_err(failed)?.into_iter();
    files
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let file = std::fs::File::open(&path).map_err(|cause| StageError::io(&path, cause))?;
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(file).map_err(|cause| StageError::io(&path, cause))?;
            Ok((name, hasher.finalize().to_hex().to_string()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_of_another_layer_or_with_the_class_token_are_refused() {
        let own = FeatureSelect::default();
        assert!(same_states(&own).is_ok());
        let earlier = FeatureSelect { vision_feature_layer: -2, ..own.clone() };
        let full = FeatureSelect { vision_feature_select_strategy: "full".to_owned(), ..own };
        for other in [earlier, full] {
            assert!(same_states(&other).is_err(), "{other:?}");
        }
    }
}
