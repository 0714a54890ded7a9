//! The first rows of a training on its device and on the CPU, before anything is learned from them.
//!
//! The fixed small model of [`super::run_checks`] proves little of shapes and values it never sees (Burn issues 5162, 5351): here
//! the weights that were loaded and rows of the data set go through both. It takes as long as the CPU takes for [`ROWS`] rows.

use burn::tensor::Tensor;

use super::fixed_model::{Collect, values};
use super::{Check, Report, difference, gradients, tolerances};
use crate::config::PixelNorm;
use crate::source::ParameterVisitor;
use crate::train::{Images, MicroBatch};
use crate::vlm::{Batch, Vlm};

/// Rows that are compared, at most.
const ROWS: usize = 2;

/// What a training computes of some rows.
struct Computed {
    loss: f32,
    by_key: Vec<(String, Vec<f32>)>,
}

/// Loss and gradients of the first rows of `micro_batch` in `model`, whose parameters that learn gather gradients, beside
/// those of the CPU in f32. `None` where there is nothing to compare: no label is a token, or the batch fits no model.
pub fn compare_first_batch(
    device: &str,
    model: &Vlm,
    rounds_products: bool,
    norm: &PixelNorm,
    micro_batch: &MicroBatch,
) -> Option<Report> {
    let rows = first_rows(model, micro_batch)?;
    let mut trained = Trained(Vec::new());
    model.clone().visit(&mut trained);
    let mut reference = model.for_inference().on_cpu();
    reference.train_only(|key| trained.0.iter().any(|trained| trained == key));
    let mut same = model.for_inference();
    same.train_only(|key| trained.0.iter().any(|trained| trained == key));
    let right = compute(reference, norm, rows.clone())?;
    let dtype = model.qwen.dtype();
    let (forward, backward) = tolerances(dtype, rounds_products);
    let found = compute(same, norm, rows);
    let (loss, gradient) = found.map_or((f32::INFINITY, f32::INFINITY), |found| {
        (difference(&[found.loss], &[right.loss]), gradients(&found.by_key, &right.by_key))
    });
    let check =
        |name: &str, difference, tolerance| Check { name: name.to_owned(), dtype, difference, tolerance };
    let checks = vec![
        check("loss of the first rows", loss, forward),
        check("gradients of the first rows", gradient, backward),
    ];
    Some(Report { device: device.to_owned(), checks, failure: None })
}

/// The first rows with their images; `None` without an answer among them.
fn first_rows(model: &Vlm, all: &MicroBatch) -> Option<MicroBatch> {
    let (rows, tokens) = (all.mask.batch().min(ROWS), all.mask.tokens());
    let input_ids = all.input_ids.get(..rows * tokens)?.to_vec();
    let labels = all.labels.get(..rows * tokens)?.to_vec();
    let pads = input_ids.iter().filter(|id| **id == model.image_pad_id).count();
    let images = match &all.images {
        Images::Pixels(bytes) if pads > 0 => {
            let config = model.clip.as_ref()?.config();
            let images = pads / config.num_patches().max(1);
            Images::Pixels(bytes.get(..images * config.pixels())?.to_vec())
        }
        Images::Features(data) if pads > 0 => {
            let [_, per_image, width] = <[usize; 3]>::try_from(data.shape().to_vec()).ok()?;
            let images = pads / per_image.max(1);
            let bytes = data.bytes().get(..images * per_image * width * data.dtype().size())?.to_vec();
            let shape = [images, per_image, width];
            Images::Features(burn::tensor::TensorData::from_bytes_vec(bytes, shape, data.dtype()))
        }
        Images::None | Images::Pixels(_) | Images::Features(_) => Images::None,
    };
    let mask = all.mask.pick(&(0..rows).collect::<Vec<usize>>());
    Some(MicroBatch { input_ids, labels, mask, images }).filter(|rows| rows.answer_tokens() > 0)
}

fn compute(mut model: Vlm, norm: &PixelNorm, rows: MicroBatch) -> Option<Computed> {
    let tokens = rows.answer_tokens() as f64;
    let MicroBatch { input_ids, labels, mask, images } = rows;
    let features = images.features(&model, norm).ok()?;
    let batch = Batch { input_ids: &input_ids, mask: &mask, features };
    let loss = model.loss(&batch, &labels).ok()?;
    let mut by_key = Vec::new();
    if loss.sum.is_tracked() {
        let all = (loss.sum.clone() / tokens).backward();
        let mut collect = Collect { all: &all, by_key };
        model.visit(&mut collect);
        by_key = collect.by_key;
    }
    let loss = values(loss.per_token).iter().sum::<f32>() / tokens as f32;
    Some(Computed { loss, by_key })
}

/// Keys of the parameters that gather gradients.
struct Trained(Vec<String>);

impl ParameterVisitor for Trained {
    fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
        if parameter.is_require_grad() {
            self.0.push(key.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::TokenMask;
    use burn::tensor::Device;

    use crate::bench::Size;
    use crate::config::Dtype;

    fn model(dtype: Dtype) -> (Vlm, MicroBatch) {
        let mut model = Size::Tiny.model(&Device::flex(), dtype);
        model.train_only(|key| key.starts_with("projector."));
        let patches = model.clip.as_ref().map_or(0, |clip| clip.config().num_patches());
        let row = |answer: u32| {
            (0..patches).map(|_| model.image_pad_id).chain([9, 10, answer]).collect::<Vec<u32>>()
        };
        let input_ids = [row(11), row(12), row(13)].concat();
        let labels = input_ids.iter().map(|id| if *id > 10 { 20 } else { -100 }).collect();
        let pixels = (0..3 * 3 * 224 * 224).map(|n| (n * 31 % 251) as u8).collect();
        let mask = TokenMask::full(3, patches + 3);
        (model, MicroBatch { input_ids, labels, mask, images: Images::Pixels(pixels) })
    }

    #[test]
    fn the_cpu_beside_itself_is_right_and_a_device_that_forgets_gradients_is_not() {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let (model, batch) = model(dtype);
            let report = compare_first_batch("cpu", &model, false, &PixelNorm::default(), &batch).unwrap();
            assert!(report.passed(), "{report}");
        }
        let (model, batch) = model(Dtype::F32);
        let right = compute(model.clone(), &PixelNorm::default(), batch.clone()).unwrap();
        assert!(right.by_key.iter().any(|(_, values)| values.iter().any(|value| *value != 0.0)));
        let mut zero = right.by_key.clone();
        zero.iter_mut().for_each(|(_, values)| values.fill(0.0));
        assert!(gradients(&zero, &right.by_key) > 0.5);
    }

    #[test]
    fn rows_beyond_the_first_and_their_images_are_left_out() {
        let (model, batch) = model(Dtype::F32);
        let first = first_rows(&model, &batch).unwrap();
        assert_eq!((first.mask.batch(), first.answer_tokens()), (2, 2));
        assert!(matches!(first.images, Images::Pixels(bytes) if bytes.len() == 2 * 3 * 224 * 224));
        let silent = MicroBatch { labels: vec![-100; batch.labels.len()], ..batch };
        assert!(first_rows(&model, &silent).is_none());
    }
}
