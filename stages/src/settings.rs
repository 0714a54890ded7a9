//! What a model repeats of the stages behind its rows, by name: whichever kind of stage prepares the rows says it.

/// How conversations are rendered: [`crate::chat_template::ChatSettings`].
pub const RENDERING: &str = "rendering";
/// How images become tokens: [`llavm_model::processor::image_tokens::ImageTokens`].
pub const IMAGE_TOKENS: &str = "image-tokens";
/// What becomes of special tokens in texts: [`llavm_model::processor::encode::SpecialInText`].
pub const SPECIAL_TOKENS: &str = "special-tokens";
/// How images become pixels: [`llavm_model::processor::image::ImageProcessor`].
pub const IMAGES: &str = "images";
/// Which states of a vision tower are kept: [`crate::encode_images::FeatureSettings`].
pub const FEATURES: &str = "features";
