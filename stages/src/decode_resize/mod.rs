//! `decode-resize`: encoded images to the square of pixels the vision model takes.
//!
//! In: `images` list<binary>, empty for a text-only row; `origins` where the pixels are stored.
//! Out: `pixels` `list<binary_view>`: `[3, size, size]` u8, channels first, one per image, as [`ImageProcessor`] prepares them; `origins`.
//!
//! Each distinct image of the table is decoded once, and its pixels are kept once: in the first row that shows it, whose item they are.
//! In every other row the item is null, and `origins` says where it stands ([`crate::distinct_images`], whose table is made first and read
//! beside the images; [`crate::image_lists::whole`] puts them together again). Five captions of an image cost a fifth of the time and
//! of the disk, wherever in the set they are; a row's output depends on its images and origins alone, so that threads and order change
//! nothing, and another image makes only those partitions again in which something else stands now.
//!
//! An image that cannot be decoded rejects every row that shows it. A row with an image that stands elsewhere has to know whether that
//! one can: it is remembered for as long as the stage is open (`verdicts.rs`), and where it is not known (the other partition was made in an
//! earlier run, or its turn comes yet), the image is decoded for the verdict. A row that is rejected for one of its images keeps the others, which
//! other rows may show. With `store = false` nothing stands elsewhere, and rows of a batch share equal images.
//!
//! | code | why a row is rejected |
//! |---|---|
//! | `undecodable` | the bytes are no whole image; a page called `.jpg`, a truncated file |
//! | `unsupported` | an image in a format, or of a kind, that is not read (AVIF, HEIC): the detail says what to do |
//! | `too-large` | more than `max_pixels` pixels, or work that many images would not need: a decompression bomb |

mod pixel_pool;
mod verdicts;

use crate::arrays::{Lists, column, item_range, list_of};
use crate::distinct_images::DistinctImages;
use crate::facts;
use crate::image_lists::{
    Distinct, ImageDigest, Origin, Origins, images_list, origins_list, origins_of_kept, shared_items,
};
use crate::settings::IMAGES;
use arrow::array::{Array, ArrayRef, BinaryArray, ListArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use llavm_model::hub;
use llavm_model::load::LoadError;
use llavm_model::processor::files::tower_image;
use llavm_model::processor::image::{
    Alpha, Crop, Filter, ImageError, ImageProcessor, Orientation, Resampler,
};
use llavm_pipeline::stage::{
    Apply, Beside, Estimate, Expected, Fact, MapStage, Missing, OpenContext, Parameters, StageKind,
};
use llavm_pipeline::{Columns, Rejects, StageError};
use pixel_pool::PixelBuffer;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use verdicts::Verdicts;

/// Parameters of `decode-resize`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, into = "Resolved")]
pub struct DecodeResize {
    /// The vision tower that the images are for, a folder or `hub:ORG/NAME`: what its `preprocessor_config.json` says is the default
    /// of `size`, `resize_to`, `filter` and `crop`. Default: none, and theirs are CLIP ViT-B/32's.
    pub vision: Option<String>,
    /// Side of the square in pixels. Default 224, or the tower's.
    pub size: Option<u32>,
    /// What the short side (with `crop = "none"`, both) is resized to before the middle is cut out. Default `size`, or the tower's.
    pub resize_to: Option<u32>,
    /// Default `bicubic`, `CLIPImageProcessor`'s (Pillow's, antialiased), or the tower's.
    pub filter: Option<Filter>,
    /// `center`, `pad` or `none`. Default `center`, or the tower's.
    pub crop: Option<Crop>,
    /// `pillow`, to the bit, or `fast`. Default `pillow`.
    pub resampler: Resampler,
    /// `exif`, upright, or `stored`. Default `exif`, as `datasets` has it.
    pub orientation: Orientation,
    /// Transparent images: `white`, on white, or `drop`, without their transparency. Default `white`, as Transformers' processors have it.
    pub alpha: Alpha,
    /// Most pixels of an encoded image. Default 178,956,970, at which Pillow raises `DecompressionBombError`.
    pub max_pixels: u64,
    /// Whether the pixels are kept (150,528 bytes an image at 224), or computed again whenever they are read. Default true.
    pub store: bool,
}

/// What decides the pixels: enters the key.
#[derive(Serialize)]
struct Resolved {
    size: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    resize_to: Option<u32>,
    filter: Filter,
    crop: Crop,
    resampler: Resampler,
    orientation: Orientation,
    alpha: Alpha,
    max_pixels: u64,
    /// Of a padded image the colour of the border.
    #[serde(skip_serializing_if = "Option::is_none")]
    mean: Option<[f32; 3]>,
}

impl From<DecodeResize> for Resolved {
    fn from(stage: DecodeResize) -> Self {
        let processor = stage.processor();
        let mean = (processor.crop == Crop::Pad).then_some(processor.norm.mean);
        let ImageProcessor {
            size, resize_to, filter, crop, resampler, orientation, alpha, max_pixels, ..
        } = processor;
        Self { size, resize_to, filter, crop, resampler, orientation, alpha, max_pixels, mean }
    }
}

impl Default for DecodeResize {
    fn default() -> Self {
        let ImageProcessor { resampler, orientation, alpha, max_pixels, .. } = ImageProcessor::default();
        Self {
            vision: None,
            size: None,
            resize_to: None,
            filter: None,
            crop: None,
            resampler,
            orientation,
            alpha,
            max_pixels,
            store: true,
        }
    }
}

impl StageKind for DecodeResize {
    const KIND: &'static str = "decode-resize";
    const VERSION: u32 = 4;
    const ABOUT: &'static str = "decode images and resize them as the vision model was trained";
}

impl Parameters for DecodeResize {
    /// One image a row.
    fn estimate(&self, expected: &Expected) -> Option<Estimate> {
        Some(Estimate::table(expected, if self.store { self.processor().n_bytes() as u64 } else { 0 }))
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        let processor = self.processor();
        if !(1..=4096).contains(&processor.size) {
            wrong.push(("size", "must be from 1 to 4096 pixels".to_owned()));
        }
        if processor.resize_to.is_some_and(|side| !(processor.size..=16_384).contains(&side)) {
            wrong.push(("resize_to", "must be from `size` to 16384 pixels".to_owned()));
        }
        if self.max_pixels == 0 {
            wrong.push(("max_pixels", "must be at least 1".to_owned()));
        }
        wrong
    }

    fn facts(&self) -> Vec<Fact> {
        let image = self.processor();
        let mut all = vec![facts::image_size(image.size as usize, "size")];
        let preparation = [
            ("what an image is resized to", "resize_to", json!(image.resize_to.unwrap_or(image.size))),
            ("how pixels are interpolated", "filter", json!(image.filter)),
            ("how an image becomes a square", "crop", json!(image.crop)),
            ("who computes the square", "resampler", json!(image.resampler)),
            ("whether images are turned upright", "orientation", json!(image.orientation)),
            ("what becomes of transparency", "alpha", json!(image.alpha)),
        ];
        all.extend(preparation.map(|(name, param, value)| facts::fact(name, param, &value.to_string())));
        // What the manifest asks for itself is its own affair.
        let own =
            [self.resize_to.is_some() || self.crop.is_some(), self.filter.is_some(), self.crop.is_some()];
        all.extend(facts::asked(&image).into_iter().zip(own).filter(|(_, own)| !own).map(|(fact, _)| fact));
        all
    }

    /// An [`ImageProcessor`]: a model folder keeps it, and inference prepares images with it. Normalising is the tower's.
    fn settings(&self) -> Result<Option<(&'static str, Value)>, StageError> {
        let failed = |error: serde_json::Error| StageError::new(error.to_string());
        let mut settings = serde_json::to_value(self.processor()).map_err(failed)?;
        if let Some(settings) = settings.as_object_mut() {
            settings.remove("norm");
        }
        Ok(Some((IMAGES, settings)))
    }

    fn missing(&self) -> Vec<Missing> {
        let help = "Name a folder, or `hub:ORG/NAME` and download it with `llavm fetch`.".to_owned();
        let failed = self.vision.as_ref().and_then(|vision| of_tower(vision).err());
        failed.map(|error| Missing { param: "vision", text: error.to_string(), help }).into_iter().collect()
    }
}

/// How the images of a vision tower are prepared.
fn of_tower(vision: &str) -> Result<ImageProcessor, LoadError> {
    tower_image(&hub::resolve(vision)?)
}

impl DecodeResize {
    /// What prepares the images. A tower that is not there is reported by [`Parameters::missing`].
    pub fn processor(&self) -> ImageProcessor {
        let tower = self.vision.as_ref().and_then(|vision| of_tower(vision).ok()).unwrap_or_default();
        let own_size = self.size.is_some_and(|size| size != tower.size);
        ImageProcessor {
            size: self.size.unwrap_or(tower.size),
            resize_to: self.resize_to.or(tower.resize_to.filter(|_| !own_size)),
            filter: self.filter.unwrap_or(tower.filter),
            crop: self.crop.unwrap_or(tower.crop),
            resampler: self.resampler,
            orientation: self.orientation,
            alpha: self.alpha,
            max_pixels: self.max_pixels,
            norm: tower.norm,
        }
    }
}

impl MapStage for DecodeResize {
    fn input(&self) -> Columns {
        let images = Columns::new().with("images", list_of(DataType::Binary));
        if self.store { images.with("origins", origins_list()) } else { images }
    }

    fn output(&self) -> Columns {
        Columns::new().with("pixels", images_list()).with("origins", origins_list())
    }

    fn stored(&self) -> bool {
        self.store
    }

    fn beside(&self) -> Option<Beside> {
        self.store.then(DistinctImages::beside)
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        let schema = self.output().schema();
        Ok(Box::new(Prepare { processor: self.processor(), schema, known: Verdicts::default() }))
    }
}

/// The stage at work.
struct Prepare {
    processor: ImageProcessor,
    schema: SchemaRef,
    /// Of images that several rows show.
    known: Verdicts,
}

impl Apply for Prepare {
    fn apply(&self, rows: &RecordBatch, rejects: &mut Rejects) -> Result<RecordBatch, StageError> {
        let images: &ListArray = column(rows, "images")?;
        let encoded = images.values().as_any().downcast_ref::<BinaryArray>();
        let encoded = encoded.ok_or_else(|| StageError::new("`images` is not a list of binary"))?;
        let origins = rows.column_by_name("origins").map(|_| Origins::of(rows)).transpose()?;
        let mut batch = Batch::new(self, encoded.len(), rows.num_rows());
        for row in 0..rows.num_rows() {
            if rejects.is_rejected(row) {
                batch.lists.push_null();
                continue;
            }
            let images = item_range(images, row).map(|item| encoded.value(item));
            let of_row = origins.as_ref().filter(|origins| origins.has(row)).map(|origins| origins.row(row));
            let known: Vec<_> = of_row.into_iter().flatten().map(Some).collect();
            if !known.is_empty() && known.len() != images.len() {
                return Err(StageError::new("a row has other images than its origins say"));
            }
            let known = known.into_iter().chain(std::iter::repeat(None));
            if let Err((n, ImageError { code, detail })) = batch.row(images.zip(known)) {
                rejects.reject(row, code, format!("image {}: {detail}", n + 1));
            }
        }
        let pixels = batch.finish()?;
        let origins = origins_of_kept(rows, &pixels)?;
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), vec![pixels, origins])?)
    }
}

/// What is known of an image, where it is known which ones stand elsewhere.
type Known = Option<(ImageDigest, Option<Origin>)>;

/// A batch of rows while it is prepared.
struct Batch<'a, 'i> {
    stage: &'a Prepare,
    pixels: PixelBuffer,
    /// By content: the place among the pixels. For images of which nothing is known.
    prepared: Distinct<'i, Result<usize, ImageError>>,
    lists: Lists,
    /// By item of the lists.
    places: Vec<Option<usize>>,
}

impl<'a, 'i> Batch<'a, 'i> {
    fn new(stage: &'a Prepare, images: usize, rows: usize) -> Self {
        Self {
            stage,
            pixels: PixelBuffer::with_capacity(stage.processor.n_bytes(), images),
            prepared: Distinct::default(),
            lists: Lists::with_capacity(rows),
            places: Vec::with_capacity(images),
        }
    }

    /// Prepares the images of a row; which of them is the first that cannot be.
    fn row(&mut self, images: impl Iterator<Item = (&'i [u8], Known)>) -> Result<(), (usize, ImageError)> {
        let before = self.places.len();
        let (mut fault, mut shared) = (None, false);
        for (n, (encoded, known)) in images.enumerate() {
            let place = self.image(encoded, known);
            shared |= known.is_some() && matches!(place, Ok(Some(_)));
            self.places.push(match place {
                Ok(place) => place,
                Err(error) => {
                    fault.get_or_insert((n, error));
                    None
                }
            });
        }
        if fault.is_some() && !shared {
            self.places.truncate(before);
            self.lists.push_null();
        } else {
            self.lists.push(self.places.len() - before);
        }
        fault.map_or(Ok(()), Err)
    }

    /// The place of an image among the pixels; none for one that stands elsewhere.
    fn image(&mut self, encoded: &'i [u8], known: Known) -> Result<Option<usize>, ImageError> {
        let Self { stage, pixels, prepared, .. } = self;
        match known {
            None => prepared.get_or_make(encoded, || stage.prepare(encoded, pixels)).clone().map(Some),
            Some((digest, None)) => {
                if let Some(waiting) = stage.known.take(digest) {
                    let place = pixels.len();
                    pixels.push().copy_from_slice(&waiting);
                    return Ok(Some(place));
                }
                let place = stage.prepare(encoded, pixels)?;
                stage.known.add(digest);
                Ok(Some(place))
            }
            Some((digest, Some(_))) => {
                if !stage.known.has(digest) {
                    let place = stage.prepare(encoded, pixels)?;
                    stage.known.keep(digest, pixels.get(place));
                    pixels.truncate(place);
                }
                Ok(None)
            }
        }
    }

    fn finish(self) -> Result<ArrayRef, StageError> {
        let items = shared_items(&self.pixels.finish(), self.stage.processor.n_bytes(), &self.places)?;
        self.lists.finish(Arc::new(items))
    }
}

impl Prepare {
    /// Prepares an image; its place among the pixels.
    fn prepare(&self, encoded: &[u8], pixels: &mut PixelBuffer) -> Result<usize, ImageError> {
        let place = pixels.len();
        let prepared = self.processor.prepare_into(encoded, pixels.push());
        if prepared.is_err() {
            pixels.truncate(place);
        }
        prepared.map(|()| place)
    }
}
