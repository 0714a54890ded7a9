//! The vision-language model: CLIP vision tower, projector and Qwen3 decoder in Burn.
//!
//! The modules read in the order in which data flows: [`clip`] -> [`projector`] -> [`vlm`] (merge at the
//! image pads) -> [`qwen3`] -> [`loss`]. [`lora`] sits beside the frozen linears of [`linear`]. A model is
//! built from its Hugging Face `config.json` ([`config`]) and any [`source::TensorSource`].
//! [`chat_template`] and [`tokenizer`] turn conversations into the ids it takes, as Transformers does.
//!
//! Weights come from [`hub`] folders through [`weights`]; a whole [`folder`] is loaded and answers ([`generate`]).

pub mod attention;
pub mod bench;
pub mod cache;
pub mod chat_template;
pub mod clip;
pub mod config;
pub mod device;
pub mod devices;
pub mod doctor;
pub mod folder;
pub mod generate;
pub mod hub;
mod kernels;
pub mod linear;
pub mod load;
pub mod lora;
pub mod loss;
pub mod magic;
pub mod message;
pub mod norm;
pub mod peft;
pub mod processor;
mod product;
pub mod projector;
pub mod qwen3;
pub mod rotary;
pub mod sampler;
pub mod save;
pub mod source;
pub mod stream;
pub mod tokenizer;
pub mod tower;
pub mod train;
pub mod untrusted;
pub mod vlm;
pub mod weights;
