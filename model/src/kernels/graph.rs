//! Tensors to slices, and an operation's place in Burn's graph.

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::{Autodiff, BackendTypes, Flex};
use burn::tensor::{Bytes, DType, Device, Shape, Tensor};

type Node = <Autodiff<Flex> as BackendTypes>::FloatTensorPrimitive;

/// Whether tensors like `x` are computed by the functions of this module: f32 on the CPU.
pub(crate) fn takes<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && x.device() == Device::flex()
}

/// An array of f32 values without a graph.
#[derive(Clone, Debug)]
pub(super) struct Array(FlexTensor);

impl Array {
    /// Values that lie one after the other, in a shape.
    pub fn new(values: Vec<f32>, shape: &[usize]) -> Self {
        let layout = Layout::contiguous(Shape::from(shape.to_vec()));
        Self(FlexTensor::new(Bytes::from_elems(values), layout, DType::F32))
    }

    /// The same values as they lie, without a copy, with dimensions 1 and 2 of the four swapped.
    pub fn swapped(self) -> Self {
        Self(self.0.transpose(1, 2))
    }

    /// Its dimensions.
    pub fn shape(&self) -> Vec<usize> {
        self.0.layout().shape().iter().copied().collect()
    }

    /// Its `D` dimensions.
    pub fn dims<const D: usize>(&self) -> [usize; D] {
        let shape = self.0.layout().shape();
        std::array::from_fn(|dim| shape[dim])
    }

    /// Values of the last dimension, which has one at least.
    pub fn width(&self) -> usize {
        self.0.layout().shape().iter().last().copied().unwrap_or(1)
    }

    /// The values, laid out one after the other. Copies those of a view.
    pub fn dense(self) -> Self {
        if self.0.layout().contiguous_offsets().is_some() { self } else { Self(self.0.to_contiguous()) }
    }

    /// As [`Array::dense`], of arrays whose last dimension need not lie one after the other.
    pub fn lined_up(self) -> Self {
        let last = self.0.layout().strides().last().copied().unwrap_or(1);
        if last == 1 && self.0.layout().strides().iter().all(|stride| *stride >= 0) {
            self
        } else {
            self.dense()
        }
    }

    /// The values, one after the other; without a copy where nobody else holds them.
    pub fn into_values(self) -> Vec<f32> {
        let data = self.0.into_data();
        data.try_into_vec::<f32>().unwrap_or_default()
    }

    /// The values of a [`Array::dense`] array.
    pub fn values(&self) -> &[f32] {
        self.0.as_slice::<f32>().unwrap_or_default()
    }

    /// The values as they lie from the first of the array on, and the distance of neighbours in each dimension.
    pub fn strided<const D: usize>(&self) -> (&[f32], [usize; D]) {
        let layout = self.0.layout();
        let strides = layout.strides();
        (&self.0.storage::<f32>()[layout.start_offset()..], std::array::from_fn(|dim| strides[dim] as usize))
    }

    /// The same values in another shape.
    pub fn shaped(self, shape: &[usize]) -> Self {
        Self(self.0.reshape(Shape::from(shape.to_vec())))
    }
}

/// An input of an operation.
pub(super) enum Input {
    Constant(Array),
    Node(Node),
}

impl Input {
    /// `x`, of which [`takes`] is true.
    pub fn of<const D: usize>(x: Tensor<D>) -> Self {
        if !x.is_autodiff() {
            return Self::Constant(plain(x));
        }
        match x.clone().try_into_primitive::<Autodiff<Flex>>() {
            Ok(node) => Self::Node(node),
            Err(_) => Self::Constant(plain(x)),
        }
    }

    /// Its values.
    pub fn array(&self) -> Array {
        match self {
            Self::Constant(array) => array.clone(),
            Self::Node(node) => Array(node.primitive().clone()),
        }
    }
}

/// The values of a tensor, of which [`takes`] is true.
pub(super) fn plain<const D: usize>(x: Tensor<D>) -> Array {
    match x.inner().try_into_primitive::<Flex>() {
        Ok(values) => Array(values),
        Err(error) => unreachable!("a tensor of another backend: {error:?}"),
    }
}

/// A tensor outside of autodiff.
pub(super) fn tensor<const D: usize>(array: Array) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(array.0)
}

/// How the gradient of an operation's output becomes those of its `N` inputs. Holds what the operation leaves for it.
pub(super) trait Gradient<const N: usize>: Clone + Debug + Send + 'static {
    /// `output` is dense. Of inputs that are not `wanted`, nothing needs to be computed.
    fn inputs(self, output: Array, wanted: [bool; N]) -> [Option<Array>; N];
}

/// The result of an operation; `gradient` is kept if an input is part of a graph.
pub(super) fn record<const N: usize, const D: usize, G: Gradient<N>>(
    inputs: [Input; N],
    output: Array,
    gradient: impl FnOnce() -> G,
) -> Tensor<D> {
    if inputs.iter().all(|input| matches!(input, Input::Constant(_))) {
        return tensor(output);
    }
    let nodes = inputs.map(|input| match input {
        Input::Constant(array) => Node::new(array.0),
        Input::Node(node) => node,
    });
    let guards = nodes.each_ref().map(Node::node);
    let step = Step::<G>(PhantomData).prepare::<NoCheckpointing>(guards).compute_bound().stateful();
    let node = match step {
        OpsKind::Tracked(step) => step.finish(gradient(), output.0),
        OpsKind::UnTracked(step) => step.finish(output.0),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(node)
}

#[derive(Debug)]
struct Step<G>(PhantomData<G>);

impl<G: Gradient<N>, const N: usize> Backward<Flex, N> for Step<G> {
    type State = G;

    fn backward(self, ops: Ops<G, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let output = Array(gradients.consume::<Flex>(&ops.node)).dense();
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let inputs = ops.state.inputs(output, wanted);
        for (parent, gradient) in ops.parents.iter().zip(inputs) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient.0);
            }
        }
    }
}
