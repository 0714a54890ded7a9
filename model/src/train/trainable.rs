//! Which parameters of a model learn.

use super::error::TrainError;
use super::parts::Part;
use crate::source::ParameterVisitor;
use crate::vlm::Vlm;
use burn::tensor::Tensor;

impl Part {
    /// Makes the parameters of `parts` require gradients, and no others.
    pub fn train(parts: &[Self], model: &mut Vlm) -> Result<(), TrainError> {
        if parts.is_empty() {
            return Err(TrainError::NothingToTrain);
        }
        let mut found = Found(Vec::new());
        model.visit(&mut found);
        if let Some(part) = parts.iter().find(|part| !found.0.contains(part)) {
            return Err(TrainError::NoSuchPart(*part));
        }
        model.train_only(|key| parts.contains(&Self::of(key)));
        Ok(())
    }
}

/// The parts that a model has.
struct Found(Vec<Part>);

impl ParameterVisitor for Found {
    fn visit<const D: usize>(&mut self, key: &str, _parameter: &mut Tensor<D>) {
        let part = Part::of(key);
        if !self.0.contains(&part) {
            self.0.push(part);
        }
    }
}
