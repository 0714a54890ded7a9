//! From a conversation to what the model reads. Only the model's own processor renders: images stand where training put them.

use llavm_model::generate::batch::Image;
use llavm_model::hub::remote_image::RemoteImages;
use llavm_model::message::Message;

use super::Asked;
use super::request::{ChatRequest, ImageSource, Part, Turn};
use crate::app::App;
use crate::error::ApiError;
use crate::images;

/// Gets the images that are elsewhere.
pub fn fetch(mut chat: ChatRequest, remote: Option<&RemoteImages>) -> Result<ChatRequest, ApiError> {
    for source in chat.sources_mut() {
        if let ImageSource::Uri(uri) = source
            && images::is_remote(uri)
        {
            *source = ImageSource::Bytes(images::fetch(uri, remote)?);
        }
    }
    Ok(chat)
}

/// Renders the conversation and prepares its images.
pub fn prepare(chat: ChatRequest, app: &App) -> Result<Asked, ApiError> {
    let (mut contents, mut pixels) = (Vec::new(), Vec::new());
    for turn in &chat.turns {
        let before = pixels.len();
        for part in &turn.parts {
            if let Part::Image(source) = part {
                pixels.push(image(source, app)?);
            }
        }
        let parts: Vec<Option<&str>> = turn.parts.iter().map(Part::text).collect();
        let shown = pixels.len() - before;
        let content = app.processor.image_tokens().of_parts(&parts);
        let tokens = app.processor.image_tokens();
        let content = if turn.role.is_user() {
            tokens.question(&content, shown, !pixels.is_empty())
        } else {
            Ok(content)
        };
        contents.push(content.map_err(|error| ApiError::field("messages", error.to_string()))?);
    }
    let messages = messages(&chat, &contents);
    let ids = app.processor.prompt(&messages, app.system.as_deref(), pixels.len())?;
    Ok(Asked { options: chat.options, ids, images: pixels })
}

/// The turns as training had them; the tools on offer are beside the first.
fn messages<'a>(chat: &'a ChatRequest, contents: &'a [String]) -> Vec<Message<'a>> {
    let message = |(n, (turn, content)): (usize, (&'a Turn, &'a String))| Message {
        role: turn.role.name(),
        content,
        tool_calls: turn.tool_calls.clone(),
        extra: turn.extra.clone(),
        tools: chat.tools.clone().filter(|_| n == 0),
    };
    chat.turns.iter().zip(contents).enumerate().map(message).collect()
}

fn image(source: &ImageSource, app: &App) -> Result<Image, ApiError> {
    match source {
        ImageSource::Uri(uri) => images::image(&images::from_uri(uri)?, &app.image),
        ImageSource::Bytes(bytes) => images::image(bytes, &app.image),
    }
}
