//! The parameter `tokenizer` of several stages: a folder or a hub name, and the files in it that decide ids and text.

use llavm_model::chat_template;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{Missing, Resource};
use std::path::PathBuf;

/// The folder `tokenizer` names.
pub fn resolve(tokenizer: &str) -> Result<PathBuf, StageError> {
    let folder = PathBuf::from(tokenizer);
    if folder.join("tokenizer.json").is_file() {
        return Ok(folder);
    }
    Err(StageError::new(format!("there is no tokenizer.json in `{}`", folder.display())).help(
        "Name the folder of a Hugging Face tokenizer, or `hub:ORG/NAME` after `llavm fetch hub:ORG/NAME`.",
    ))
}

/// The files whose content enters the key, whatever stage uses them: a changed tokenizer is a changed tokenizer.
pub fn resources(tokenizer: &str) -> Result<Vec<Resource>, StageError> {
    let files = chat_template::files(&resolve(tokenizer)?);
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(files.into_iter().map(|path| Resource { name: name(&path).unwrap_or_default(), path }).collect())
}

/// What to tell a user whose tokenizer is not there.
pub fn missing(tokenizer: &str) -> Vec<Missing> {
    let error = resolve(tokenizer).err();
    let missing = error.map(|error| Missing {
        param: "tokenizer",
        text: error.to_string(),
        help: error.advice().unwrap_or_default().to_owned(),
    });
    missing.into_iter().collect()
}
