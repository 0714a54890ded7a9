//! The model's operations on the CPU in f32, forward and backward, each in one pass over memory on all threads.
//!
//! Burn's CPU backend composes them of elementwise operations, most of which run on one thread and read and write everything once, and
//! lays tensors out again between products. Here an operation is a function over slices, and one node of Burn's graph whose gradient
//! is another such function. Other devices and types keep the plain composition, which stands beside every use; `tests.rs`
//! holds values and gradients of both together.
//!
//! | file | what |
//! |---|---|
//! | `graph.rs` | tensors to slices, and an operation's place in Burn's graph |
//! | `buffer.rs` | results written row by row by all threads; loops compiled for wide registers |
//! | `matrix.rs` | matrices wherever they lie, their products, and products in pieces |
//! | `product.rs` | `x W^T + b`, and the products of its gradient |
//! | `avx512.rs` | `x W^T + b` on CPUs that have it |
//! | `norm.rs` | RMS norm, layer norm |
//! | `activation.rs` | `silu(gate) * up`, quick GELU, `exp` |
//! | `rotary.rs` | rotary embedding |
//! | `attention.rs` | scaled dot-product attention, head by head |
//! | `adamw.rs` | AdamW, and the length of a gradient |
//! | `loss.rs` | softmax and cross-entropy of rows of logits |
//!
//! Sums have the same order whatever the number of threads: work is cut into pieces of fixed sizes.

mod activation;
mod adamw;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod buffer;
mod graph;
mod loss;
mod matrix;
mod norm;
mod product;
mod rotary;
#[cfg(test)]
mod tests;

pub(crate) use activation::{quick_gelu, swiglu};
pub(crate) use adamw::{AdamStep, adamw, add, squares};
pub(crate) use attention::attention;
pub(crate) use graph::takes;
pub(crate) use loss::{Predicted, cross_entropy};
pub(crate) use norm::{layer_norm, rms_norm};
pub(crate) use product::{linear, product};
pub(crate) use rotary::rotate;
