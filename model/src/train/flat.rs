//! What trains, one parameter after the other in few long tensors.
//!
//! Norm, clipping, AdamW and the sum over devices are then a handful of operations, instead of a handful for each of hundreds of
//! parameters. The model's parameters are views of these tensors where both are f32 on the CPU, and copies elsewhere.
//!
//! A weight of a model that is not f32 is kept here in f32: a step of lr = 1e-4 is often below what bf16 can add to it. As in
//! torch, a parameter without a gradient is left alone, its decay and step count included.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor};

use super::adamw::{self, AdamW, Pace, decays};
use super::gradients::Gradients;
use super::masters::{Masters, flat};
use crate::kernels;
use crate::source::ParameterVisitor;
use crate::vlm::Vlm;

/// Most values of a bucket (128 MiB), unless one parameter alone has more: what is copied at once beside all that is there.
const LONGEST: usize = 1 << 25;

/// Where a parameter lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    bucket: usize,
    piece: usize,
    /// Of the bucket's values, its first.
    start: usize,
}

/// All that trains, and what the optimiser remembers of it.
#[derive(Clone, Debug)]
pub(super) struct Flat {
    pub buckets: Vec<Bucket>,
    places: BTreeMap<String, Place>,
}

/// Parameters of one weight decay.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub decays: bool,
    pub pieces: Vec<Piece>,
    /// In f32, as are the means of gradients and of their squares.
    pub weight: Tensor<1>,
    pub moments: [Tensor<1>; 2],
}

/// One parameter of a bucket.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub key: String,
    pub shape: Vec<usize>,
    /// Updates so far.
    pub steps: u64,
}

/// The gradients of a bucket.
#[derive(Clone, Debug)]
pub(super) struct Lined {
    /// As long as the bucket; 0 where there is none.
    pub values: Tensor<1>,
    /// Whether each piece has one.
    pub present: Vec<bool>,
}

/// The gradients of all buckets; `None` of a bucket in which nothing has any.
pub(super) type LinedUp = Vec<Option<Lined>>;

impl Piece {
    pub fn length(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Flat {
    /// The parameters of `model` that gather gradients; those in `masters` from there.
    pub fn of(model: &mut Vlm, masters: Masters) -> Self {
        Self::in_buckets(model, masters, LONGEST)
    }

    fn in_buckets(model: &mut Vlm, masters: Masters, longest: usize) -> Self {
        let mut gather = Gather { masters, longest, filling: [None, None], full: Vec::new() };
        model.visit(&mut gather);
        let Gather { filling, mut full, .. } = gather;
        full.extend(filling.into_iter().flatten());
        let buckets: Vec<Bucket> = full.into_iter().map(Filling::close).collect();
        let mut places = BTreeMap::new();
        for (bucket, Bucket { pieces, .. }) in buckets.iter().enumerate() {
            let mut start = 0;
            for (piece, of) in pieces.iter().enumerate() {
                places.insert(of.key.clone(), Place { bucket, piece, start });
                start += of.length();
            }
        }
        Self { buckets, places }
    }

    /// The weight of the parameter `key` and its two moments, `[values]` each, and its updates; `None` of one that does not train.
    pub fn state(&self, key: &str) -> Option<([Tensor<1>; 3], u64)> {
        let place = self.places.get(key)?;
        let bucket = self.buckets.get(place.bucket)?;
        let piece = bucket.pieces.get(place.piece)?;
        let [mean, square] = &bucket.moments;
        let part = |of: &Tensor<1>| of.clone().narrow(0, place.start, piece.length());
        Some(([part(&bucket.weight), part(mean), part(square)], piece.steps))
    }

    /// All weights by key.
    pub fn masters(&self) -> Masters {
        let state = |key: &String| Some((key.clone(), self.state(key)?.0[0].clone()));
        self.places.keys().filter_map(state).collect()
    }

    /// The gradients in the places of their parameters.
    pub fn line_up(&self, mut gradients: Gradients) -> LinedUp {
        self.buckets.iter().map(|bucket| bucket.line_up(&mut gradients)).collect()
    }

    /// Moves everything that has a gradient, in the model too.
    pub fn update(&mut self, model: &mut Vlm, gradients: LinedUp, adam: &AdamW, pace: Pace) {
        // Nobody else may hold the weights, or they would be copied.
        if self.buckets.iter().any(|bucket| kernels::takes(&bucket.weight)) {
            model.visit(&mut Release { places: &self.places });
        }
        for (bucket, gradients) in self.buckets.iter_mut().zip(gradients) {
            if let Some(gradients) = gradients {
                bucket.update(gradients, adam, pace);
            }
        }
        self.show(model);
    }

    /// Gives `model` the weights as they are here.
    pub fn show(&self, model: &mut Vlm) {
        model.visit(&mut Scatter { flat: self });
    }

    /// The same on another device.
    pub fn to_device(&self, device: &Device) -> Self {
        let moved = |tensor: &Tensor<1>| to_device(tensor.clone(), device);
        let bucket = |bucket: &Bucket| Bucket {
            weight: moved(&bucket.weight),
            moments: bucket.moments.each_ref().map(moved),
            ..bucket.clone()
        };
        Self { buckets: self.buckets.iter().map(bucket).collect(), places: self.places.clone() }
    }
}

/// The length of all gradients as one vector, `[1]`; `None` when there are none.
pub(super) fn norm(gradients: &LinedUp) -> Option<Tensor<1>> {
    let squares = gradients.iter().flatten().map(|Lined { values, .. }| {
        if kernels::takes(values) { kernels::squares(values.clone()) } else { values.clone().square().sum() }
    });
    squares.reduce(|sum, square| sum + square).map(Tensor::sqrt)
}

/// A tensor on another device, by way of the host's memory where it is another.
pub(super) fn to_device<const D: usize>(tensor: Tensor<D>, device: &Device) -> Tensor<D> {
    if tensor.device() == *device {
        return tensor;
    }
    let dtype = tensor.dtype();
    Tensor::from_data(tensor.into_data(), (device, dtype))
}

impl Bucket {
    fn line_up(&self, gradients: &mut Gradients) -> Option<Lined> {
        let found: Vec<Option<Tensor<1>>> =
            self.pieces.iter().map(|piece| gradients.take(&piece.key)).collect();
        let present: Vec<bool> = found.iter().map(Option::is_some).collect();
        if !present.contains(&true) {
            return None;
        }
        let device = self.weight.device();
        let zeros = |piece: &Piece| Tensor::zeros([piece.length()], (&device, DType::F32));
        let parts = found.into_iter().zip(&self.pieces);
        let parts: Vec<Tensor<1>> =
            parts.map(|(found, piece)| found.unwrap_or_else(|| zeros(piece))).collect();
        Some(Lined { values: Tensor::cat(parts, 0), present })
    }

    fn update(&mut self, gradients: Lined, adam: &AdamW, pace: Pace) {
        let Lined { values, present } = gradients;
        let runs = self.runs(&present);
        for (piece, present) in self.pieces.iter_mut().zip(&present) {
            piece.steps += u64::from(*present);
        }
        let at = |steps| adam.at(steps, self.decays, pace);
        let nothing = Tensor::empty([0], &self.weight.device());
        let weight = std::mem::replace(&mut self.weight, nothing.clone());
        let moments = std::mem::replace(&mut self.moments, [nothing.clone(), nothing]);
        (self.weight, self.moments) = match runs.as_slice() {
            [Run { steps: Some(steps), .. }] => adamw::update(weight, moments, values, &at(*steps)),
            _ => in_runs(&weight, &moments, &values, &runs, at),
        };
    }

    /// Neighbours that are moved by the same numbers, together.
    fn runs(&self, present: &[bool]) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (piece, present) in self.pieces.iter().zip(present) {
            let steps = present.then_some(piece.steps + 1);
            match runs.last_mut().filter(|run| run.steps == steps) {
                Some(run) => run.length += piece.length(),
                None => runs.push(Run { length: piece.length(), steps }),
            }
        }
        runs
    }
}

/// Neighbouring parameters with as many updates, this one included; `None` of those that are left alone.
struct Run {
    length: usize,
    steps: Option<u64>,
}

fn in_runs(
    weight: &Tensor<1>,
    moments: &[Tensor<1>; 2],
    gradients: &Tensor<1>,
    runs: &[Run],
    at: impl Fn(u64) -> kernels::AdamStep,
) -> (Tensor<1>, [Tensor<1>; 2]) {
    let mut moved: [Vec<Tensor<1>>; 3] = Default::default();
    let mut start = 0;
    for Run { length, steps } in runs {
        let part = |of: &Tensor<1>| of.clone().narrow(0, start, *length);
        let before = (part(weight), moments.each_ref().map(part));
        let (weight, [mean, square]) = match steps {
            Some(steps) => adamw::update(before.0, before.1, part(gradients), &at(*steps)),
            None => before,
        };
        moved.iter_mut().zip([weight, mean, square]).for_each(|(parts, part)| parts.push(part));
        start += length;
    }
    let [weight, mean, square] = moved.map(|parts| Tensor::cat(parts, 0));
    (weight, [mean, square])
}

/// A bucket that is being filled.
struct Filling {
    decays: bool,
    pieces: Vec<Piece>,
    weights: Vec<Tensor<1>>,
    length: usize,
}

impl Filling {
    fn close(self) -> Bucket {
        let weight = Tensor::cat(self.weights, 0);
        let moments = [weight.zeros_like(), weight.zeros_like()];
        Bucket { decays: self.decays, pieces: self.pieces, weight, moments }
    }
}

/// Sorts parameters into buckets, in the order in which they come.
struct Gather {
    masters: Masters,
    longest: usize,
    /// Of what decays, and of what does not.
    filling: [Option<Filling>; 2],
    full: Vec<Filling>,
}

impl ParameterVisitor for Gather {
    fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
        if !parameter.is_require_grad() {
            return;
        }
        let decays = decays(key);
        let piece = Piece { key: key.to_owned(), shape: parameter.dims().to_vec(), steps: 0 };
        let weight = self.masters.remove(key).unwrap_or_else(|| flat(parameter));
        let length = piece.length();
        let filling = &mut self.filling[usize::from(!decays)];
        if filling.as_ref().is_some_and(|filling| filling.length + length > self.longest) {
            self.full.extend(filling.take());
        }
        let filling = filling.get_or_insert_with(|| Filling {
            decays,
            pieces: Vec::new(),
            weights: Vec::new(),
            length: 0,
        });
        filling.pieces.push(piece);
        filling.weights.push(weight);
        filling.length += length;
    }
}

/// Takes the weights out of the model.
struct Release<'a> {
    places: &'a BTreeMap<String, Place>,
}

impl ParameterVisitor for Release<'_> {
    fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
        if self.places.contains_key(key) {
            *parameter = Tensor::empty([0; D], (&parameter.device().inner(), parameter.dtype()));
        }
    }
}

/// Puts the weights into the model, which gathers their gradients still.
struct Scatter<'a> {
    flat: &'a Flat,
}

impl ParameterVisitor for Scatter<'_> {
    fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
        let Some(place) = self.flat.places.get(key) else { return };
        let Some(bucket) = self.flat.buckets.get(place.bucket) else { return };
        let Some(piece) = bucket.pieces.get(place.piece) else { return };
        let shape: [usize; D] = std::array::from_fn(|dim| piece.shape[dim]);
        let weight = bucket.weight.clone().narrow(0, place.start, piece.length());
        let weight: Tensor<D> = weight.reshape(shape).cast(parameter.dtype());
        *parameter = weight.autodiff().require_grad();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Size;
    use crate::config::Dtype;
    use crate::train::TrainingArguments;

    fn model() -> Vlm {
        let mut model = Size::Tiny.model(&Device::flex(), Dtype::F32);
        model.train_only(|key| key.starts_with("projector.") || key.contains("layers.0."));
        model
    }

    fn values(tensor: Tensor<1>) -> Vec<u32> {
        tensor.try_into_vec_as::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    }

    /// Weights that train, by key.
    struct Seen(BTreeMap<String, Vec<u32>>);

    impl ParameterVisitor for Seen {
        fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
            if parameter.is_require_grad() {
                self.0.insert(key.to_owned(), values(flat(parameter)));
            }
        }
    }

    fn seen(model: &mut Vlm) -> BTreeMap<String, Vec<u32>> {
        let mut seen = Seen(BTreeMap::new());
        model.visit(&mut seen);
        seen.0
    }

    #[test]
    fn every_parameter_lies_in_one_bucket_of_its_decay() {
        let mut model = model();
        let before = seen(&mut model);
        let longest = 40_000;
        let flat = Flat::in_buckets(&mut model, Masters::new(), longest);
        flat.show(&mut model);
        assert_eq!(seen(&mut model), before);
        assert!(flat.buckets.len() > 3 && Flat::of(&mut model, Masters::new()).buckets.len() == 2);
        let mut keys = Vec::new();
        for bucket in &flat.buckets {
            let length: usize = bucket.pieces.iter().map(Piece::length).sum();
            assert_eq!(bucket.weight.dims(), [length]);
            assert!(length <= longest || bucket.pieces.len() == 1);
            assert!(bucket.pieces.iter().all(|piece| decays(&piece.key) == bucket.decays));
            keys.extend(bucket.pieces.iter().map(|piece| piece.key.clone()));
        }
        keys.sort();
        assert_eq!(keys, before.into_keys().collect::<Vec<_>>());
    }

    /// Three steps in which only every other parameter has a gradient in the second: it alone is not moved then, and counts its own
    /// updates. Beside it each parameter by itself.
    #[test]
    fn a_parameter_without_gradient_is_left_alone() {
        let mut model = model();
        let mut flat = Flat::of(&mut model, Masters::new());
        let adam = AdamW::new(&TrainingArguments { weight_decay: 0.1, ..TrainingArguments::default() });
        let mut alone: BTreeMap<String, (Tensor<1>, [Tensor<1>; 2], u64)> = flat
            .masters()
            .into_iter()
            .map(|(key, weight)| (key, (weight.clone(), [weight.zeros_like(), weight.zeros_like()], 0)))
            .collect();
        for step in 1..=3 {
            let pace = Pace { factor: 0.5, learning_rate: 1e-2 * f64::from(step) };
            let mut gradients = Gradients::default();
            for (n, (key, (weight, moments, steps))) in alone.iter_mut().enumerate() {
                if step == 2 && n % 2 == 0 {
                    continue;
                }
                let gradient = weight.clone() * 0.3 + 0.01 * f64::from(step);
                gradients.put(key, gradient.clone());
                *steps += 1;
                let at = adam.at(*steps, decays(key), pace);
                (*weight, *moments) = adamw::update(weight.clone(), moments.clone(), gradient, &at);
            }
            let gradients = flat.line_up(gradients);
            flat.update(&mut model, gradients, &adam, pace);
        }
        let expected = alone.into_iter().map(|(key, (weight, ..))| (key, values(weight)));
        assert_eq!(seen(&mut model), expected.collect());
    }

    #[test]
    fn the_norm_is_that_of_all_gradients_together_to_its_last_value() {
        let lined = |values: Vec<f32>| {
            let length = values.len();
            let data = burn::tensor::TensorData::new(values, [length]);
            Some(Lined { values: Tensor::from_data(data, &Device::flex()), present: vec![true] })
        };
        let of = |gradients: &LinedUp| -> f32 { norm(gradients).unwrap().into_scalar() };
        assert!((of(&vec![lined(vec![3.0, 0.0]), None, lined(vec![4.0])]) - 5.0).abs() < 1e-6);
        assert!(norm(&vec![None, None]).is_none());
        let long = vec![0.5; (1 << 21) + 3];
        let expected = 0.5 * (long.len() as f32).sqrt();
        assert!((of(&vec![lined(long)]) / expected - 1.0).abs() < 1e-6);
    }
}
