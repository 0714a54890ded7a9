//! The language of a row: its column's, the one the manifest states, or the one its answers are written in.

use super::conversation::{Message, Role};
use crate::language::detect;
use serde::{Deserialize, Serialize};

/// `language`: a code such as `zh` for every row, or `detect`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum LanguageOf {
    /// By the answers; [`crate::language`] has the rule.
    Detect,
    Stated(String),
}

const DETECT: &str = "detect";

impl From<String> for LanguageOf {
    fn from(text: String) -> Self {
        if text == DETECT { Self::Detect } else { Self::Stated(text) }
    }
}

impl From<LanguageOf> for String {
    fn from(language: LanguageOf) -> Self {
        match language {
            LanguageOf::Detect => DETECT.to_owned(),
            LanguageOf::Stated(code) => code,
        }
    }
}

/// The language of all that the assistant says.
pub fn of_answers(turns: &[Message<'_>]) -> Option<&'static str> {
    let answers = turns.iter().filter(|turn| turn.role == Role::Assistant);
    let answers: Vec<&str> = answers.map(|turn| turn.content.as_ref()).collect();
    detect(&answers.join("\n"))
}
