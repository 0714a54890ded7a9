//! Images of requests: from data URIs, or from addresses where that is allowed, to the square of pixels that the model sees.

use data_url::DataUrl;
use llavm_model::generate::batch::Image;
use llavm_model::hub::remote_image::RemoteImages;
use llavm_model::magic::{Content, Image as Format};
use llavm_model::processor::image::ImageProcessor;
use llavm_model::processor::image::codecs::TOO_LARGE;

use crate::error::ApiError;

/// An image that came with its request, or the bytes of one that was fetched.
pub fn from_uri(uri: &str) -> Result<Vec<u8>, ApiError> {
    let invalid = |why: String| ApiError::invalid("invalid_image_url", why);
    let data = DataUrl::process(uri)
        .map_err(|error| invalid(format!("an image's data URI is not valid: {error:?}")))?;
    let (bytes, _) = data
        .decode_to_vec()
        .map_err(|error| invalid(format!("an image's base64 is not valid: {error:?}")))?;
    Ok(bytes)
}

/// Whether an image has to be fetched.
pub fn is_remote(uri: &str) -> bool {
    let scheme = uri.split_once(':').map_or("", |(scheme, _)| scheme);
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// The bytes behind an address.
pub fn fetch(uri: &str, remote: Option<&RemoteImages>) -> Result<Vec<u8>, ApiError> {
    let refused = |why: String| ApiError::invalid("invalid_image_url", why);
    let Some(remote) = remote else {
        let why = "images are not fetched from elsewhere: send a data URI, or start the server with --allow-remote-images HOST";
        return Err(refused(why.to_owned()));
    };
    remote.get(uri).map_err(|error| refused(error.to_string()))
}

/// What the model sees of an encoded image: `[3, size, size]` bytes of RGB.
pub fn prepare(bytes: &[u8], processor: &ImageProcessor) -> Result<Vec<u8>, ApiError> {
    let format = Content::of_image(bytes);
    if !matches!(format, Some(Content::Image(Format::Png | Format::Jpeg | Format::WebP | Format::Gif))) {
        return Err(ApiError::invalid("invalid_image", "an image is no PNG, JPEG, WebP or GIF"));
    }
    processor.prepare(bytes).map_err(|error| {
        let code = if error.code == TOO_LARGE { "image_too_large" } else { "invalid_image" };
        ApiError::invalid(code, format!("an image cannot be used: {error}"))
    })
}

/// As [`prepare`], named for the engine.
pub fn image(bytes: &[u8], processor: &ImageProcessor) -> Result<Image, ApiError> {
    prepare(bytes, processor).map(Image::new)
}
