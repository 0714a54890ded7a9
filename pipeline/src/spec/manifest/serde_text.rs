//! Serde's error messages in the words of the manifest, with the nearest valid name.

use super::nearest::did_you_mean;
use super::problem::{Problem, Problems};
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

/// Serde's words for a type, and ours.
const WORDS: [(&str, &str); 19] = [
    ("a sequence", "a list"),
    ("sequence", "list"),
    ("a map", "a table"),
    ("map", "table"),
    ("a boolean", "true or false"),
    ("a string or table", "a string or a table"),
    ("boolean", "boolean"),
    ("u8", "a whole number from 0 to 255"),
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number, 0 or more"),
    ("u64", "a whole number, 0 or more"),
    ("usize", "a whole number, 0 or more"),
    ("i8", "a whole number"),
    ("i16", "a whole number"),
    ("i32", "a whole number"),
    ("i64", "a whole number"),
    ("isize", "a whole number"),
    ("f32", "a number"),
    ("f64", "a number"),
];

/// What serde said, as a headline and, when a name was wrong, advice.
pub(super) struct Explained {
    pub(super) message: String,
    pub(super) help: Option<String>,
    /// The key that is missing, if that is it.
    pub(super) missing: Option<String>,
}

/// Reads a message of serde or of the toml crate.
pub(super) fn translate(message: &str) -> Explained {
    let message = message.trim_end();
    let named = backticked(message);
    match named.split_first() {
        Some((name, _)) if message.starts_with("missing field ") => Explained {
            message: format!("`{name}` is missing"),
            help: None,
            missing: Some((*name).to_owned()),
        },
        Some((name, valid)) if message.starts_with("unknown field ") => Explained {
            message: format!("unknown key `{name}`"),
            help: Some(did_you_mean(name, "keys", valid.iter().copied())),
            missing: None,
        },
        Some((name, valid)) if message.starts_with("unknown variant ") => Explained {
            message: format!("unknown value `{name}`"),
            help: Some(did_you_mean(name, "values", valid.iter().copied())),
            missing: None,
        },
        _ => Explained { message: in_our_words(message), help: None, missing: None },
    }
}

/// The words between backticks.
fn backticked(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

/// `invalid type: string "big", expected u32` becomes `expected a whole number, 0 or more, not the string "big"`.
fn in_our_words(message: &str) -> String {
    let Some((found, expected)) = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "))
    else {
        return message.to_owned();
    };
    let (found, expected) = (word(found), word(expected));
    let expected = if expected.starts_with("struct ") { "a table" } else { expected };
    let article = if found.contains(' ') { "the" } else { "a" };
    format!("expected {expected}, not {article} {found}")
}

fn word(serde: &str) -> &str {
    WORDS.iter().find(|(theirs, _)| *theirs == serde).map_or(serde, |(_, ours)| ours)
}

/// `value` as a `T`; a problem when it is something else.
pub(super) fn typed<'i, T: Deserialize<'i>>(
    value: Spanned<DeValue<'i>>,
    key: &str,
    problems: &mut Problems,
) -> Option<T> {
    let span = value.span();
    T::deserialize(ValueDeserializer::from(value))
        .map_err(|error| {
            let explained = translate(error.message());
            let problem =
                Problem::new(format!("`{key}`: {}", explained.message)).at(error.span().unwrap_or(span), "");
            problems.add(problem.help(explained.help.unwrap_or_default()));
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    #[expect(dead_code, reason = "only its errors are looked at")]
    struct Sample {
        size: u32,
        mode: Mode,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Mode {
        Global,
        Partition,
    }

    fn explained(toml: &str) -> (String, Option<String>) {
        let error = toml::from_str::<Sample>(toml).unwrap_err();
        let explained = translate(error.message());
        (explained.message, explained.help)
    }

    #[test]
    fn messages_name_types_as_toml_users_do() {
        assert_eq!(
            explained("size = \"big\"").0,
            "expected a whole number, 0 or more, not the string \"big\""
        );
        assert_eq!(explained("size = []").0, "expected a whole number, 0 or more, not a list");
        assert_eq!(explained("size = -1").0, "expected a whole number, 0 or more, not the integer `-1`");
        assert_eq!(explained("size = 1").0, "`mode` is missing");
    }

    #[test]
    fn a_wrong_name_comes_with_the_nearest_one() {
        let expected = "Did you mean `global`? Values: global, partition.";
        assert_eq!(
            explained("size = 1\nmode = \"globl\""),
            ("unknown value `globl`".to_owned(), Some(expected.to_owned()))
        );
        assert_eq!(
            explained("sise = 1"),
            ("unknown key `sise`".to_owned(), Some("Did you mean `size`? Keys: size, mode.".to_owned()))
        );
    }
}
