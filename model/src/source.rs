//! Where a model's tensors come from, and how a module asks for them.
//!
//! In: a checkpoint, or a seed. Out: one tensor for every key that a module names while it is built. A
//! module states key, shape and initialisation once; the same statement loads a published checkpoint and
//! makes a random model.

mod random;

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::Dtype;

pub use random::RandomSource;

/// How a tensor is filled when a model is made from scratch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Zero.
    Zeros,
    /// One, the scale of a norm.
    Ones,
    /// Bell-shaped around 0 with this standard deviation.
    Normal(f64),
    /// Evenly in `-bound..bound`.
    Uniform(f64),
}

impl Init {
    /// `torch.nn.Linear`'s own initialisation, `kaiming_uniform(a = sqrt 5)`: bound `1 / sqrt(inputs)`.
    pub fn linear(inputs: usize) -> Self {
        Self::Uniform(1.0 / (inputs as f64).sqrt())
    }
}

/// One tensor that a module needs.
#[derive(Clone, Copy, Debug)]
pub struct TensorSpec<'a> {
    /// Its key in a published checkpoint, such as `model.layers.0.self_attn.q_proj.weight`.
    pub key: &'a str,
    /// Its shape as PyTorch stores it: a linear's weight is `[out, in]`.
    pub shape: &'a [usize],
    /// What it is wanted in.
    pub dtype: Dtype,
    /// How to fill it when there is no checkpoint.
    pub init: Init,
}

/// A supply of tensors: a checkpoint on disk, or a generator of random ones.
///
/// A source that cannot serve a request (key missing, other shape) remembers it, answers with zeros, and
/// reports every such request together once the model is built: see each implementation's `finish`.
pub trait TensorSource {
    /// The tensor that `wanted` names, with exactly its shape, preferably in its dtype already.
    fn take(&mut self, wanted: &TensorSpec<'_>) -> TensorData;
}

/// Builds a module's tensors on one device in one dtype, at one place in the tree of keys.
pub struct Loader<'a> {
    source: &'a mut dyn TensorSource,
    device: Device,
    dtype: Dtype,
    prefix: String,
}

impl<'a> Loader<'a> {
    /// A loader at the root of the tree.
    pub fn new(source: &'a mut dyn TensorSource, device: &Device, dtype: Dtype) -> Self {
        Self { source, device: device.clone(), dtype, prefix: String::new() }
    }

    /// The same loader one step down: keys gain `name` and a dot.
    pub fn at(&mut self, name: impl std::fmt::Display) -> Loader<'_> {
        let prefix = format!("{}{name}.", self.prefix);
        Loader { source: &mut *self.source, device: self.device.clone(), dtype: self.dtype, prefix }
    }

    /// The tensor `name` at this place, of `shape`.
    pub fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D], init: Init) -> Tensor<D> {
        let key = format!("{}{name}", self.prefix);
        let wanted = TensorSpec { key: &key, shape: &shape, dtype: self.dtype, init };
        Tensor::from_data(self.source.take(&wanted), (&self.device, self.dtype.storage()))
    }

    /// Where the tensors go.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What the tensors are held in.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }
}

/// Sees every parameter of a model with its checkpoint key: to save it, mark it trainable or update it.
pub trait ParameterVisitor {
    /// Called once per parameter, in the order of the checkpoint.
    fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>);
}
