//! Training: which weights move, by how much, and how a run is continued.
//!
//! In: a [`crate::vlm::Vlm`], [`TrainingArguments`] and micro-batches. Out: the same model with some weights
//! changed, one [`StepReport`] per optimiser step, and checkpoints that continue bit for bit on the CPU; on other devices sums may be taken
//! in another order each time.
//!
//! ```text
//! each step:  each micro-batch:  gradients += d(sum of answer losses / answer tokens of the whole step)    (rank, gradients)
//!             gradients in few long tensors           (flat)
//!             summed over devices                     (all_reduce, ranks)
//!             clipped to max_grad_norm                (gradients)
//!             learning rate of this step              (schedule)
//!             AdamW on the f32 master weights         (adamw)
//! ```
//!
//! Names, defaults and arithmetic are those of Hugging Face's `Trainer` (transformers 5.23) on `torch.optim.AdamW`
//! (2.15); `tests/training.rs` holds both side by side.

mod adamw;
mod all_reduce;
mod arguments;
mod batch;
mod checkpoint;
mod error;
mod flat;
mod gradients;
mod masters;
mod measure;
mod parts;
mod prefix;
mod rank;
mod ranks;
mod schedule;
mod trainable;
mod trainer;

pub(crate) use adamw::AdamW;
pub use adamw::decays;
pub use arguments::TrainingArguments;
pub use batch::{Images, MicroBatch};
pub use checkpoint::CheckpointError;
pub use error::TrainError;
pub use measure::{MeasureError, Measured};
pub use parts::Part;
pub use schedule::{LrScheduler, Schedule};
pub use trainer::{StepReport, Trainer};
