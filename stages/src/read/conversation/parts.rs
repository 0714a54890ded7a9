//! The content of a turn: a text, or parts of which some are images.

use super::super::image_cell::{self, Image, short};
use super::super::marks::IMAGE_PLACEHOLDER;
use super::super::raw::reject;
use super::super::value::Value;
use super::{Builder, Role};
use llavm_pipeline::rejects::Reject;
use std::borrow::Cow;

/// An image inside text, as Qwen-VL writes it: `<img>path</img>`.
const TAG: (&str, &str) = ("<img>", "</img>");

impl<'a> Builder<'a> {
    /// The images beside the words of a question (`images`), where no column holds them. They stand before the words, unless these say
    /// where.
    pub(super) fn beside(
        &mut self,
        number: usize,
        item: &Value<'_>,
        content: Cow<'a, str>,
    ) -> Result<Cow<'a, str>, Reject> {
        let Some(images) = item.first_of(&["images", "image"]).filter(|_| self.in_text) else {
            return Ok(content);
        };
        let before = self.images.len();
        let placeholders = self.image(number, Some(images))?;
        let says_where = content.contains("<image") || content.contains(TAG.0);
        if self.images.len() == before || says_where {
            return Ok(content);
        }
        Ok(Cow::Owned(format!("{placeholders}\n{content}")))
    }

    /// Content as text: a string, or parts of which images become [`IMAGE_PLACEHOLDER`].
    pub(super) fn content(
        &mut self,
        number: usize,
        role: Role,
        content: Option<&Value<'_>>,
    ) -> Result<String, Reject> {
        match content {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::List(parts)) => self.joined(number, role, parts),
            Some(part @ Value::Object(_)) => self.joined(number, role, std::slice::from_ref(part)),
            Some(cell) => match cell.as_text() {
                Some(text) if role == Role::User => Ok(self.without_tags(text)?.into_owned()),
                Some(text) => Ok(text.into_owned()),
                None => Err(reject(
                    "bad-conversation",
                    format!("message {number}: content is {}, not text", cell.kind()),
                )),
            },
        }
    }

    /// Parts in order; an image stands on a line of its own, as LLaVA writes it, unless the text already breaks there.
    fn joined(&mut self, number: usize, role: Role, parts: &[Value<'_>]) -> Result<String, Reject> {
        let mut joined = String::new();
        let mut after_image = false;
        for part in parts {
            let (text, is_image) = self.part(number, role, part)?;
            let breaks = joined.is_empty()
                || text.is_empty()
                || joined.ends_with('\n')
                || text.starts_with(['\n', '\r']);
            if (is_image || after_image) && !breaks {
                joined.push('\n');
            }
            joined.push_str(&text);
            after_image = is_image;
        }
        Ok(joined)
    }

    fn part<'p>(
        &mut self,
        number: usize,
        role: Role,
        part: &'p Value<'_>,
    ) -> Result<(Cow<'p, str>, bool), Reject> {
        if let Value::Text(text) = part {
            let text = Cow::Borrowed(text.as_ref());
            return Ok((if role == Role::User { self.without_tags(text)? } else { text }, false));
        }
        let image = part.first_of(&image_cell::FIELDS);
        let text = part.first_of(&["text", "content"]).and_then(Value::as_text);
        match part.get("type").and_then(Value::as_text).as_deref() {
            Some("image" | "image_url" | "input_image" | "img" | "image_base64" | "image_path") => {
                Ok((self.image(number, image)?, true))
            }
            Some("text" | "input_text" | "output_text") => Ok((text.unwrap_or_default(), false)),
            Some(other) => Err(reject(
                "bad-conversation",
                format!("message {number} holds a part of type {}", short(other)),
            )),
            None if image.is_some() => Ok((self.image(number, image)?, true)),
            None if text.is_some() => Ok((text.unwrap_or_default(), false)),
            None => {
                let detail =
                    format!("message {number} holds a part that is neither text nor image: {}", part.kind());
                Err(reject("bad-conversation", detail))
            }
        }
    }

    /// The placeholders of a part's images, which are kept where no column holds them; a part may say only where one belongs.
    fn image(&mut self, number: usize, payload: Option<&Value<'_>>) -> Result<Cow<'static, str>, Reject> {
        let Some(payload) = payload.filter(|_| self.in_text) else {
            return Ok(Cow::Borrowed(IMAGE_PLACEHOLDER));
        };
        let images = image_cell::images(payload).map_err(|Reject { code, detail }| Reject {
            code,
            detail: format!("message {number}: {detail}"),
        })?;
        let count = images.len();
        self.images.extend(images.into_iter().map(Image::into_owned));
        Ok(if count < 2 {
            Cow::Borrowed(IMAGE_PLACEHOLDER)
        } else {
            Cow::Owned(vec![IMAGE_PLACEHOLDER; count].join("\n"))
        })
    }

    /// The text with placeholders for `<img>path</img>`, whose images are kept.
    pub(super) fn without_tags<'t>(&mut self, text: Cow<'t, str>) -> Result<Cow<'t, str>, Reject> {
        if !self.in_text || !text.contains(TAG.0) {
            return Ok(text);
        }
        let mut given = String::with_capacity(text.len());
        let mut rest = text.as_ref();
        while let Some((before, tagged)) = rest.split_once(TAG.0) {
            let Some((inside, behind)) = tagged.split_once(TAG.1) else { break };
            let cell = Value::Text(Cow::Borrowed(inside));
            let images = image_cell::images(&cell)?;
            given.push_str(before);
            given.push_str(IMAGE_PLACEHOLDER);
            self.images.extend(images.into_iter().map(Image::into_owned));
            rest = behind;
        }
        given.push_str(rest);
        Ok(Cow::Owned(given))
    }
}
