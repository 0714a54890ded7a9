//! f32 masters of a model that computes in another type.
//!
//! Projector and adapters are small, and what a step adds to them is often below what bf16 can hold. So they are loaded,
//! trained and saved in f32, while the model computes with a rounded copy.

use std::collections::BTreeMap;

use burn::tensor::{DType, FloatDType, Tensor};

use super::parts::Part;
use crate::config::Dtype;
use crate::source::ParameterVisitor;
use crate::vlm::Vlm;

/// Values in f32, flat, by the parameter's key.
pub(super) type Masters = BTreeMap<String, Tensor<1>>;

/// The values of `parameter`, outside of autodiff: `[values]` in f32.
pub(super) fn flat<const D: usize>(parameter: &Tensor<D>) -> Tensor<1> {
    parameter.clone().inner().cast(FloatDType::F32).reshape([-1])
}

/// Rounds every parameter that is f32 to the model's own type and answers with what it was; nothing in an f32 model.
pub(super) fn split(model: &mut Vlm) -> Masters {
    let mut split = Split { dtype: model.qwen.dtype(), masters: Masters::new() };
    if split.dtype != Dtype::F32 {
        model.visit(&mut split);
    }
    split.masters
}

/// Gives projector and adapters their masters back, in f32: a model to be saved, not to compute with.
pub(super) fn join(model: &mut Vlm, masters: Masters) {
    model.visit(&mut Join { masters });
}

struct Split {
    dtype: Dtype,
    masters: Masters,
}

impl ParameterVisitor for Split {
    fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
        if parameter.dtype() == DType::F32 {
            self.masters.insert(key.to_owned(), flat(parameter));
            *parameter = parameter.clone().inner().cast(self.dtype.float());
        }
    }
}

struct Join {
    masters: Masters,
}

impl ParameterVisitor for Join {
    fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
        let is_small = matches!(Part::of(key), Part::Projector | Part::Lora);
        if let Some(master) = self.masters.remove(key).filter(|_| is_small) {
            *parameter = master.reshape(parameter.dims());
        }
    }
}
