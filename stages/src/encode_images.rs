//! `encode-images`: pictures to the patch states of a CLIP vision tower, computed once and kept.
//!
//! In: `pixels` `list<fixed_size_binary[3·size·size]>` (see `decode-resize`; `size` is the tower's `image_size`).
//! Out: `features` `list<fixed_size_binary[patches·width·2]>`, one item per picture: its states `[patches, width]` row by row, each
//! number a little-endian f16. `patches` and `width` are those of the tower's `config.json` (49 and 768 for ViT-B/32, 75,264
//! bytes). They are what the projector takes: the last layer's states without the class token, and no `post_layernorm`.
//!
//! The tower computes in f32; only the result is rounded to f16, by at most 0.05% of each number.
//!
//! | code | why a row is rejected |
//! |---|---|
//! | `not-finite` | a state is infinite or no number in f16 |

use crate::arrays::{Lists, column, item_range, list_of};
use arrow::array::{FixedSizeBinaryArray, ListArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;
use llavm_model::clip::ClipVision;
use llavm_model::config::{ClipVisionConfig, Dtype, PixelNorm};
use llavm_model::device::{DeviceError, DeviceName};
use llavm_model::doctor::verdicts::{Verdicts, require_healthy};
use llavm_model::hub;
use llavm_model::load::{self, LoadError};
use llavm_model::weights::Checkpoint;
use llavm_pipeline::stage::{
    Apply, Estimate, Expected, MapStage, Missing, OpenContext, Parameters, Resource, StageKind,
};
use llavm_pipeline::{Columns, Rejects, StageError};
use serde::{Deserialize, Serialize, Serializer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Pictures in one forward pass: enough to keep a device busy, few enough for any memory.
const CHUNK: usize = 16;

/// Parameters of `encode-images`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodeImages {
    /// The vision tower: a folder or `hub:ORG/NAME`.
    #[serde(skip_serializing)]
    pub clip: String,
    /// `cpu`, `cuda`, `cuda:1` or `wgpu`. Default `cpu`.
    #[serde(default = "cpu", serialize_with = "family")]
    pub device: String,
    /// How a number is kept. Default, and so far the only one, `f16`.
    #[serde(default)]
    pub dtype: Kept,
    /// Whether the features are kept. Default true; false computes them whenever they are read.
    #[serde(default = "yes", skip_serializing)]
    pub store: bool,
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

/// Another kind of device may round otherwise; another device of the same kind does not.
fn family<S: Serializer>(device: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(device.split(':').next().unwrap_or_default())
}

fn failed<E: std::error::Error + Send + Sync + 'static>(error: E) -> StageError {
    StageError::new(error.to_string()).because(error)
}

impl StageKind for EncodeImages {
    const KIND: &'static str = "encode-images";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "compute the CLIP states of pictures once";
    const PARAMS: &'static [&'static str] = &["clip", "device", "dtype", "store"];
}

impl Parameters for EncodeImages {
    /// One picture a row.
    fn estimate(&self, expected: &Expected) -> Option<Estimate> {
        let bytes = if self.store { feature_bytes(&self.sizes()) } else { 0 };
        Some(Estimate::table(expected, bytes as u64))
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        let wrong = self.device.parse::<DeviceName>().err();
        wrong.map(|error: DeviceError| ("device", error.to_string())).into_iter().collect()
    }

    fn resources(&self) -> Result<Vec<Resource>, StageError> {
        let folder = hub::resolve(&self.clip).map_err(failed)?;
        let files = tower_files(&folder).map_err(failed)?.into_iter();
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(files.map(|path| Resource { name: name(&path), path }).collect())
    }

    fn missing(&self) -> Vec<Missing> {
        let found = hub::resolve_file(&self.clip, "config.json", &[]).map_err(|error| error.to_string());
        let weights = |config: PathBuf| {
            let folder = config.parent().unwrap_or(&config).to_owned();
            tower_files(&folder).map(|_| ()).map_err(|error| error.to_string())
        };
        let help = "Name a folder, or `hub:ORG/NAME` and download it with `llavm fetch`.".to_owned();
        let missing = found.and_then(weights).err().map(|text| Missing { param: "clip", text, help });
        missing.into_iter().collect()
    }
}

/// The files that decide what a tower gives.
fn tower_files(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let mut files: Vec<PathBuf> = Checkpoint::open(folder)?.files().map(Path::to_owned).collect();
    let names = ["config.json", "preprocessor_config.json"].map(|name| folder.join(name));
    files.extend(names.into_iter().filter(|path| path.is_file()));
    Ok(files)
}

impl EncodeImages {
    /// The tower's sizes; ViT-B/32's when it is not there, which [`Parameters::missing`] tells.
    fn sizes(&self) -> ClipVisionConfig {
        let folder = hub::resolve(&self.clip).ok();
        folder.and_then(|folder| load::clip_config(&folder).ok()).unwrap_or_default()
    }
}

/// Bytes of the features of one picture.
fn feature_bytes(config: &ClipVisionConfig) -> usize {
    config.num_patches() * config.hidden_size * Dtype::F16.size()
}

impl MapStage for EncodeImages {
    fn input(&self) -> Columns {
        Columns::new().with("pixels", list_of(DataType::FixedSizeBinary(self.sizes().pixels() as i32)))
    }

    fn output(&self) -> Columns {
        let bytes = feature_bytes(&self.sizes()) as i32;
        Columns::new().with("features", list_of(DataType::FixedSizeBinary(bytes)))
    }

    fn stored(&self) -> bool {
        self.store
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        let name: DeviceName = self.device.parse().map_err(failed)?;
        require_healthy(name, &[Dtype::F32], &Verdicts::of_user()).map_err(failed)?;
        let device = name.open().map_err(failed)?;
        let folder = hub::resolve(&self.clip).map_err(failed)?;
        let tower = load::clip(&folder, &device, Dtype::F32).map_err(failed)?;
        Ok(Box::new(Encoder {
            bytes: feature_bytes(tower.config()),
            norm: load::pixel_norm(&folder).map_err(failed)?,
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
        let pictures: &ListArray = column(rows, "pixels")?;
        let pixels = pictures.values().as_any().downcast_ref::<FixedSizeBinaryArray>();
        let pixels = pixels.ok_or_else(|| StageError::new("`pixels` is no list of pictures"))?;
        let kept: Vec<usize> = (0..rows.num_rows()).filter(|row| !rejects.is_rejected(*row)).collect();
        let wanted: Vec<usize> = kept.iter().flat_map(|row| item_range(pictures, *row)).collect();
        let mut states = Vec::with_capacity(wanted.len() * self.bytes);
        for chunk in wanted.chunks(CHUNK) {
            let bytes = chunk.iter().flat_map(|picture| pixels.value(*picture)).copied().collect();
            states.extend(self.encode(bytes)?);
        }
        self.finish(rows.num_rows(), pictures, &states, rejects)
    }
}

impl Encoder {
    /// The states of some pictures, in f16.
    fn encode(&self, pixels: Vec<u8>) -> Result<Vec<u8>, StageError> {
        let _turn = self.turn.as_ref().map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
        self.tower.states_in_f16(pixels, &self.norm).map_err(StageError::new)
    }

    /// The column; `states` are those of the pictures of all rows that are not rejected.
    fn finish(
        &self,
        rows: usize,
        pictures: &ListArray,
        states: &[u8],
        rejects: &mut Rejects,
    ) -> Result<RecordBatch, StageError> {
        let mut lists = Lists::with_capacity(rows);
        let mut kept = Vec::with_capacity(states.len());
        let mut rest = states;
        for row in 0..rows {
            if !rejects.is_rejected(row) {
                let count = item_range(pictures, row).len();
                let (own, others) = rest.split_at(count * self.bytes);
                rest = others;
                if is_finite(own) {
                    kept.extend_from_slice(own);
                    lists.push(count);
                    continue;
                }
                rejects.reject(row, "not-finite", "a state of a picture is infinite or no number in f16");
            }
            lists.push_null();
        }
        let items = FixedSizeBinaryArray::try_new(self.bytes as i32, Buffer::from_vec(kept), None)?;
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), vec![lists.finish(Arc::new(items))?])?)
    }
}

/// Whether no f16 has all its exponent bits set.
fn is_finite(bytes: &[u8]) -> bool {
    bytes.as_chunks::<2>().0.iter().all(|number| number[1] & 0x7c != 0x7c)
}
