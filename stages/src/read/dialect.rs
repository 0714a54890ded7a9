//! How tables and other text files are written, where the manifest says it: `delimiter`, `quote`, `encoding`.

use encoding_rs::Encoding;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What separates the fields of a line: one ASCII character, or `tab`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delimiter(pub u8);

/// What encloses a field that holds delimiters; nothing does where it is `""`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote(pub Option<u8>);

/// The encoding of a text file, by any name that the web knows it by (WHATWG).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextEncoding(pub &'static Encoding);

fn ascii<E: serde::de::Error>(text: &str, what: &str) -> Result<u8, E> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r') => Ok(*byte),
        _ => Err(E::custom(format!("`{text}` is no {what}, which is one ASCII character"))),
    }
}

impl<'de> Deserialize<'de> for Delimiter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "tab" { Ok(Self(b'\t')) } else { ascii(&text, "delimiter").map(Self) }
    }
}

impl Serialize for Delimiter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        char::from(self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Quote {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            Ok(Self(None))
        } else {
            ascii(&text, "quotation mark").map(|quote| Self(Some(quote)))
        }
    }
}

impl Serialize for Quote {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.map_or_else(String::new, |quote| char::from(quote).to_string()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TextEncoding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Encoding::for_label(name.as_bytes()).map(Self).ok_or_else(|| {
            let known = "utf-8, utf-16, gbk, gb18030, big5, shift_jis, euc-kr, windows-1252, …";
            serde::de::Error::custom(format!("`{name}` is no encoding; known are {known}"))
        })
    }
}

impl Serialize for TextEncoding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.name().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_and_encodings_are_named_as_people_write_them() {
        let delimiter = |text: &str| serde_json::from_value::<Delimiter>(text.into());
        assert_eq!((delimiter(";").unwrap().0, delimiter("tab").unwrap().0), (b';', b'\t'));
        assert!(delimiter("||").unwrap_err().to_string().contains("one ASCII character"));
        let encoding = |text: &str| serde_json::from_value::<TextEncoding>(text.into());
        assert_eq!(encoding("GBK").unwrap(), encoding("gb2312").unwrap());
        assert!(encoding("klingon").unwrap_err().to_string().contains("is no encoding"));
    }
}
