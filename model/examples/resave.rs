//! Copies a model folder with all its parts in full, so that it needs no other folder:
//!
//! ```text
//! cargo run --release -p llavm-model --example resave -- MODEL_FOLDER NEW_FOLDER [f32|f16|bf16]
//! ```
//!
//! `examples/load_in_python.py` shows that transformers and PEFT load the result.

use std::error::Error;
use std::path::Path;

use burn::tensor::Device;
use llavm_model::config::Dtype;
use llavm_model::folder::ModelFolder;
use llavm_model::generate::assistant::Assistant;
use llavm_model::peft;
use llavm_model::save::{self, Parts};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, dtype @ ..] = arguments.as_slice() else {
        return Err("usage: resave MODEL_FOLDER NEW_FOLDER [f32|f16|bf16]".into());
    };
    let folder = ModelFolder::open(from)?;
    let mut description = folder.description.clone();
    if let [dtype] = dtype {
        description.dtype = dtype.parse()?;
    }
    let mut assistant = Assistant::load(&folder, &Device::flex(), Dtype::F32)?;
    let parts = Parts {
        lora: folder.adapter().map(|adapter| peft::read_config(&adapter)).transpose()?,
        qwen: Some(Some(folder.qwen()?)),
        clip: Some(Some(folder.clip()?)),
    };
    save::model_folder(Path::new(to), &mut assistant.model, description, &parts)?;
    Ok(())
}
