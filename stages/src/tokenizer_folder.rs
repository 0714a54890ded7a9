//! The parameter `tokenizer` of several stages: a folder or a hub name, and the files in it that decide ids and text.

use llavm_model::chat_template;
use llavm_model::hub::{HubError, resolve_file};
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{Missing, Resource};
use std::path::PathBuf;

const TOKENIZER: &str = "tokenizer.json";

/// The folder `tokenizer` names, which holds a `tokenizer.json`.
pub fn resolve(tokenizer: &str) -> Result<PathBuf, StageError> {
    find(tokenizer).map_err(|error| StageError::new(error.to_string()).because(error))
}

fn find(tokenizer: &str) -> Result<PathBuf, HubError> {
    let mut folder = resolve_file(tokenizer, TOKENIZER, &["tokenizer*", "*.jinja"])?;
    folder.pop();
    Ok(folder)
}

/// The files whose content enters the key, whatever stage uses them: a changed tokenizer is a changed tokenizer.
pub fn resources(tokenizer: &str) -> Result<Vec<Resource>, StageError> {
    let files = chat_template::files(&resolve(tokenizer)?);
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(files.into_iter().map(|path| Resource { name: name(&path).unwrap_or_default(), path }).collect())
}

/// The advice for a user whose tokenizer is not there.
pub fn missing(tokenizer: &str) -> Vec<Missing> {
    let missing = find(tokenizer).err().map(|error| Missing {
        param: "tokenizer",
        text: error.to_string(),
        help: "Name the folder of a Hugging Face tokenizer, or `hub:ORG/NAME`.".to_owned(),
    });
    missing.into_iter().collect()
}
