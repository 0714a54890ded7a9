//! `encode-images`: images to the patch states of a CLIP vision tower, computed once and kept.
//!
//! In: `pixels` `list<binary_view>`, `[3, size, size]` u8 (see `decode-resize`; `size` is the tower's `image_size`).
//! Images that stand elsewhere (`origins`) are null in both, and encoded where they stand.
//! Out: `origins`, and `features` `list<binary_view>`, one item per image: its states `[patches, width]` row by row, each
//! number a little-endian f16. `patches` and `width` are those of the tower's `config.json` (49 and 768 for ViT-B/32, 75,264
//! bytes). They are what the projector takes: the last layer's states without the class token, and no `post_layernorm`.
//!
//! The tower computes in f32; only the result is rounded to f16, by at most 0.05% of each number.
//!
//! | code | why a row is rejected |
//! |---|---|
//! | `not-finite` | a state is infinite or no number in f16 |

use crate::arrays::Lists;
use crate::facts;
use crate::image_lists::{
    Distinct, ImageLists, Origins, images_list, origins_list, origins_of_kept, shared_items,
};
use crate::settings;
use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use llavm_model::clip::{ClipVision, FeatureSelect};
use llavm_model::config::{ClipVisionConfig, Dtype, PixelNorm};
use llavm_model::device::DeviceError;
use llavm_model::doctor::verdicts::{Verdicts, require_healthy};
use llavm_model::hub;
use llavm_model::processor::files::tower_image;
use llavm_model::{load, tower};
use llavm_pipeline::stage::{
    Apply, Estimate, Expected, Fact, MapStage, Missing, OpenContext, Parameters, Resource, StageKind,
};
use llavm_pipeline::{Columns, Rejects, StageError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The column of states.
pub const FEATURES: &str = "features";

/// Images in one forward pass: enough to keep a device busy, few enough for any memory.
const CHUNK: usize = 16;

/// Parameters of `encode-images`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodeImages {
    /// The vision tower: a folder or `hub:ORG/NAME`.
    #[serde(skip_serializing)]
    pub clip: String,
    /// `cpu`, `cuda`, `cuda:1` or `wgpu`; of several (`cuda:0,1`) the first. Default `cpu`.
    #[serde(default = "cpu", serialize_with = "crate::device::family")]
    pub device: String,
    /// How a number is kept. Default, and so far the only one, `f16`.
    #[serde(default)]
    pub dtype: Kept,
    /// Whether the features are kept. Default true; false computes them whenever they are read.
    #[serde(default = "yes", skip_serializing)]
    pub store: bool,
}

/// What features are, beside the tower that makes them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureSettings {
    /// Which states of the tower.
    pub select: FeatureSelect,
    /// How they are kept.
    pub dtype: Kept,
}

/// How a number is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    #[default]
    F16,
}

fn cpu() -> String {
    "cpu".to_owned()
}

fn yes() -> bool {
    true
}

fn failed<E: std::error::Error + Send + Sync + 'static>(error: E) -> StageError {
    StageError::new(error.to_string()).because(error)
}

impl StageKind for EncodeImages {
    const KIND: &'static str = "encode-images";
    const VERSION: u32 = 5;
    const ABOUT: &'static str = "compute the CLIP states of images once";
}

impl Parameters for EncodeImages {
    /// One image a row.
    fn estimate(&self, expected: &Expected) -> Option<Estimate> {
        let bytes = if self.store { feature_bytes(&self.sizes()) } else { 0 };
        Some(Estimate::table(expected, bytes as u64))
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        let wrong = crate::device::first(&self.device).err();
        wrong.map(|error: DeviceError| ("device", error.to_string())).into_iter().collect()
    }

    fn facts(&self) -> Vec<Fact> {
        let tower = facts::vision_tower(&self.clip, "clip");
        facts::tower(&self.clip, "clip").into_iter().chain(tower).collect()
    }

    /// A [`FeatureSettings`].
    fn settings(&self) -> Result<Option<(&'static str, Value)>, StageError> {
        let value = json!({ "select": FeatureSelect::default(), "dtype": self.dtype });
        Ok(Some((settings::FEATURES, value)))
    }

    fn resources(&self) -> Result<Vec<Resource>, StageError> {
        let folder = hub::resolve(&self.clip).map_err(failed)?;
        let files = tower::files(&folder).map_err(failed)?.into_iter();
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(files.map(|path| Resource { name: name(&path), path }).collect())
    }

    fn missing(&self) -> Vec<Missing> {
        let found = hub::resolve_file(&self.clip, "config.json", &[]).map_err(|error| error.to_string());
        let weights = |config: PathBuf| {
            let folder = config.parent().unwrap_or(&config).to_owned();
            tower::files(&folder).map(|_| ()).map_err(|error| error.to_string())
        };
        let help = "Name a folder, or `hub:ORG/NAME` and download it with `llavm fetch`.".to_owned();
        let missing = found.and_then(weights).err().map(|text| Missing { param: "clip", text, help });
        missing.into_iter().collect()
    }
}

impl EncodeImages {
    /// The tower's sizes; ViT-B/32's when it is not there, which [`Parameters::missing`] reports.
    fn sizes(&self) -> ClipVisionConfig {
        let folder = hub::resolve(&self.clip).ok();
        folder.and_then(|folder| load::clip_config(&folder).ok()).unwrap_or_default()
    }
}

/// Bytes of the features of one image.
fn feature_bytes(config: &ClipVisionConfig) -> usize {
    config.num_patches() * config.hidden_size * Dtype::F16.size()
}

impl MapStage for EncodeImages {
    fn input(&self) -> Columns {
        Columns::new().with("pixels", images_list()).with("origins", origins_list())
    }

    fn output(&self) -> Columns {
        Columns::new().with(FEATURES, images_list()).with("origins", origins_list())
    }

    fn stored(&self) -> bool {
        self.store
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        let name = crate::device::first(&self.device).map_err(failed)?;
        require_healthy(name, &[Dtype::F32], &Verdicts::of_user()).map_err(failed)?;
        let device = name.open().map_err(failed)?;
        let folder = hub::resolve(&self.clip).map_err(failed)?;
        let tower = load::clip(&folder, &device, Dtype::F32).map_err(failed)?;
        Ok(Box::new(Encoder {
            bytes: feature_bytes(tower.config()),
            norm: tower_image(&folder).map_err(failed)?.norm,
            schema: self.output().schema(),
            turn: (!name.is_reference()).then(Mutex::default),
            tower,
        }))
    }
}

/// The tower at work.
struct Encoder {
    tower: ClipVision,
    norm: PixelNorm,
    bytes: usize,
    schema: arrow::datatypes::SchemaRef,
    /// Lets one thread at a time use a device with a memory of its own.
    turn: Option<Mutex<()>>,
}

impl Apply for Encoder {
    fn apply(&self, rows: &RecordBatch, rejects: &mut Rejects) -> Result<RecordBatch, StageError> {
        let images = ImageLists::of(rows, "pixels")?;
        let origins = Origins::of(rows)?;
        // A rejected row keeps the images that other rows may show.
        let encoded = |row: &usize| !rejects.is_rejected(*row) || origins.has(*row);
        let kept: Vec<usize> = (0..rows.num_rows()).filter(encoded).collect();
        let mut seen = Distinct::default();
        let mut wanted: Vec<&[u8]> = Vec::new();
        let mut places = Vec::new();
        for image in kept.iter().flat_map(|row| images.row(*row)) {
            let Some(image) = image else {
                places.push(None);
                continue;
            };
            self.check_size(image)?;
            places.push(Some(*seen.get_or_make(image, || {
                wanted.push(image);
                wanted.len() - 1
            })));
        }
        let mut states = Vec::with_capacity(wanted.len() * self.bytes);
        for chunk in wanted.chunks(CHUNK) {
            states.extend(self.encode(chunk.concat())?);
        }
        self.finish(rows, &kept, states, &places, rejects)
    }
}

impl Encoder {
    /// Whether the pixels are those of an image of the tower's size.
    fn check_size(&self, pixels: &[u8]) -> Result<(), StageError> {
        let (side, expected) = (self.tower.config().image_size, self.tower.config().pixels());
        if pixels.len() == expected {
            return Ok(());
        }
        let own = (pixels.len() / 3).isqrt();
        let text = format!("`pixels` holds images of {own} × {own}, the vision tower takes {side} × {side}");
        Err(StageError::new(text).help(format!("Set `size = {side}` in decode-resize.")))
    }

    /// The states of some images, in f16.
    fn encode(&self, pixels: Vec<u8>) -> Result<Vec<u8>, StageError> {
        let _turn = self.turn.as_ref().map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
        self.tower.states_in_f16(pixels, &self.norm).map_err(StageError::new)
    }

    /// The columns; `states` are those of distinct images, `places` which of them the images of the rows `kept` have.
    fn finish(
        &self,
        rows: &RecordBatch,
        kept: &[usize],
        states: Vec<u8>,
        places: &[Option<usize>],
        rejects: &mut Rejects,
    ) -> Result<RecordBatch, StageError> {
        let (images, origins) = (ImageLists::of(rows, "pixels")?, Origins::of(rows)?);
        let finite: Vec<bool> = states.chunks_exact(self.bytes).map(is_finite).collect();
        let is_finite = |place: &Option<usize>| place.is_none_or(|place| finite[place]);
        let mut lists = Lists::with_capacity(rows.num_rows());
        let mut items = Vec::with_capacity(places.len());
        let mut rest = places;
        let mut next = kept.iter().peekable();
        for row in 0..rows.num_rows() {
            if next.next_if_eq(&&row).is_none() {
                lists.push_null();
                continue;
            }
            let (own, others) = rest.split_at(images.len(row));
            rest = others;
            if !own.iter().all(is_finite) {
                rejects.reject(row, "not-finite", "a state of an image is infinite or no number in f16");
            }
            let shared = origins.has(row) && own.iter().any(Option::is_some);
            if rejects.is_rejected(row) && !shared {
                lists.push_null();
                continue;
            }
            items.extend(own.iter().map(|place| place.filter(|place| finite[*place])));
            lists.push(own.len());
        }
        let items = shared_items(&Buffer::from_vec(states), self.bytes, &items)?;
        let features = lists.finish(Arc::new(items))?;
        let origins = origins_of_kept(rows, &features)?;
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), vec![features, origins])?)
    }
}

/// Whether no f16 has all its exponent bits set.
fn is_finite(bytes: &[u8]) -> bool {
    bytes.as_chunks::<2>().0.iter().all(|number| number[1] & 0x7c != 0x7c)
}
