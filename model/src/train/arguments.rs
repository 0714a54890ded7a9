//! The numbers of a training run, under Hugging Face's names.

use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::schedule::{LrScheduler, Schedule};

/// Hyper-parameters. Names and defaults are those of transformers' `TrainingArguments`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingArguments {
    /// Peak learning rate, per step. Default 5e-5.
    pub learning_rate: f64,
    /// Share of a weight that is taken off per step and unit of learning rate; norms and biases are spared.
    /// Default 0.
    pub weight_decay: f64,
    /// Decay of the mean of gradients, 0..1. Default 0.9.
    pub adam_beta1: f64,
    /// Decay of the mean of squared gradients, 0..1. Default 0.999.
    pub adam_beta2: f64,
    /// Added to the root of the mean square. Default 1e-8.
    pub adam_epsilon: f64,
    /// Longest gradient (Euclidean, over all weights) that is not shortened; 0 leaves all as they are. Default 1.
    pub max_grad_norm: f64,
    /// Course of the learning rate: `linear`, `cosine`, `constant` or `constant_with_warmup`. Default linear.
    #[serde(alias = "lr_scheduler_type")]
    pub lr_scheduler: LrScheduler,
    /// Share of all steps in which the learning rate rises from 0, 0..1. Default 0.
    pub warmup_ratio: f64,
    /// Rows in one forward pass. Default 8.
    pub per_device_train_batch_size: usize,
    /// Forward passes per optimiser step. Default 1.
    pub gradient_accumulation_steps: usize,
    /// How often every row is seen; may be a fraction. Default 3.
    pub num_train_epochs: f64,
    /// Optimiser steps, whatever `num_train_epochs` says. Default: as many as the epochs take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Where every random number of the run comes from. Default 42.
    pub seed: u64,
    /// Whether the backward pass computes every decoder layer again from its input instead of keeping what is in it.
    /// Default false.
    pub gradient_checkpointing: bool,
}

impl Default for TrainingArguments {
    fn default() -> Self {
        Self {
            learning_rate: 5e-5,
            weight_decay: 0.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            max_grad_norm: 1.0,
            lr_scheduler: LrScheduler::Linear,
            warmup_ratio: 0.0,
            per_device_train_batch_size: 8,
            gradient_accumulation_steps: 1,
            num_train_epochs: 3.0,
            max_steps: None,
            seed: 42,
            gradient_checkpointing: false,
        }
    }
}

impl TrainingArguments {
    /// Every field's name, for a caller that takes them out of a larger table.
    pub const NAMES: [&'static str; 14] = [
        "learning_rate",
        "weight_decay",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "max_grad_norm",
        "lr_scheduler",
        "warmup_ratio",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "num_train_epochs",
        "max_steps",
        "seed",
        "gradient_checkpointing",
    ];

    /// Refuses numbers with which no run makes sense, by name.
    pub fn validate(&self) -> Result<(), TrainError> {
        let at_least_zero = "must be a number of at least 0";
        let below_one = "must be at least 0 and below 1";
        let positive = "must be at least 1";
        let checks = [
            ("learning_rate", self.learning_rate, self.learning_rate >= 0.0, at_least_zero),
            ("weight_decay", self.weight_decay, self.weight_decay >= 0.0, at_least_zero),
            ("adam_beta1", self.adam_beta1, (0.0..1.0).contains(&self.adam_beta1), below_one),
            ("adam_beta2", self.adam_beta2, (0.0..1.0).contains(&self.adam_beta2), below_one),
            ("adam_epsilon", self.adam_epsilon, self.adam_epsilon >= 0.0, at_least_zero),
            ("max_grad_norm", self.max_grad_norm, self.max_grad_norm >= 0.0, at_least_zero),
            ("warmup_ratio", self.warmup_ratio, (0.0..1.0).contains(&self.warmup_ratio), below_one),
            count("per_device_train_batch_size", self.per_device_train_batch_size as f64, positive),
            count("gradient_accumulation_steps", self.gradient_accumulation_steps as f64, positive),
            ("num_train_epochs", self.num_train_epochs, self.num_train_epochs > 0.0, "must be above 0"),
            count("max_steps", self.max_steps.map_or(1.0, |steps| steps as f64), positive),
        ];
        // An infinite value passes the comparisons, but leads nowhere.
        let wrong = checks.into_iter().find(|(_, value, fine, _)| !fine || !value.is_finite());
        wrong.map_or(Ok(()), |(field, value, _, reason)| Err(TrainError::Argument { field, value, reason }))
    }

    /// Optimiser steps of one epoch over `rows`; the last of them may see fewer rows.
    pub fn steps_per_epoch(&self, rows: u64) -> u64 {
        let passes = rows.div_ceil(self.per_device_train_batch_size.max(1) as u64);
        passes.div_ceil(self.gradient_accumulation_steps.max(1) as u64).max(1)
    }

    /// Optimiser steps of the whole run over `rows`.
    pub fn total_steps(&self, rows: u64) -> u64 {
        let epochs = || (self.num_train_epochs * self.steps_per_epoch(rows) as f64).ceil() as u64;
        self.max_steps.unwrap_or_else(epochs)
    }

    /// The course of the learning rate over `total_steps`.
    pub fn schedule(&self, total_steps: u64) -> Schedule {
        Schedule {
            scheduler: self.lr_scheduler,
            learning_rate: self.learning_rate,
            warmup_steps: (total_steps as f64 * self.warmup_ratio).ceil() as u64,
            total_steps,
        }
    }
}

fn count(field: &'static str, value: f64, reason: &'static str) -> (&'static str, f64, bool, &'static str) {
    (field, value, value >= 1.0, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_names_holds_every_field() {
        let all = TrainingArguments { max_steps: Some(1), ..TrainingArguments::default() };
        let json = serde_json::to_value(&all).unwrap();
        let mut names: Vec<&str> = TrainingArguments::NAMES.to_vec();
        names.sort_unstable();
        let mut fields: Vec<&String> = json.as_object().unwrap().keys().collect();
        fields.sort_unstable();
        assert_eq!(fields, names);
    }

    #[test]
    fn hugging_faces_own_spelling_of_the_scheduler_is_read() {
        let text = "learning_rate = 1e-4\nlr_scheduler_type = \"cosine\"\n";
        let arguments: TrainingArguments = toml::from_str(text).unwrap();
        assert_eq!(arguments.lr_scheduler, LrScheduler::Cosine);
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let error = toml::from_str::<TrainingArguments>("learning_rat = 1e-4").unwrap_err().to_string();
        assert!(error.contains("learning_rat"), "{error}");
    }

    #[test]
    fn a_number_without_sense_is_named() {
        let of = |text: &str| toml::from_str::<TrainingArguments>(text).unwrap().validate().unwrap_err();
        insta::assert_snapshot!(of("warmup_ratio = 5.0"), @"train: warmup_ratio = 5, but it must be at least 0 and below 1");
        insta::assert_snapshot!(of("gradient_accumulation_steps = 0"), @"train: gradient_accumulation_steps = 0, but it must be at least 1");
        insta::assert_snapshot!(of("learning_rate = nan"), @"train: learning_rate = NaN, but it must be a number of at least 0");
        insta::assert_snapshot!(of("weight_decay = inf"), @"train: weight_decay = inf, but it must be a number of at least 0");
    }

    #[test]
    fn a_rest_of_rows_makes_one_more_step() {
        let arguments = TrainingArguments {
            per_device_train_batch_size: 4,
            gradient_accumulation_steps: 8,
            num_train_epochs: 2.0,
            ..TrainingArguments::default()
        };
        assert_eq!((arguments.steps_per_epoch(32), arguments.steps_per_epoch(33)), (1, 2));
        assert_eq!(arguments.total_steps(33), 4);
        assert_eq!(TrainingArguments { num_train_epochs: 0.3, ..arguments.clone() }.total_steps(33), 1);
        assert_eq!(TrainingArguments { max_steps: Some(7), ..arguments }.total_steps(33), 7);
    }
}
