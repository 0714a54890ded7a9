//! The language of a row: its column's, the one the manifest states, or the one its answers (or questions) are written in.

use super::conversation::Message;
use crate::language::of_conversation;
use serde::{Deserialize, Serialize};

/// `language`: a code such as `zh` for every row, or `detect`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum LanguageOf {
    /// By the answers, or the questions where these hold no letter; [`crate::language`] has the rule.
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

/// The language of a conversation.
pub fn of_turns(turns: &[Message<'_>]) -> Option<&'static str> {
    let turns: Vec<_> = turns.iter().map(|turn| (turn.role.name(), turn.content.as_ref())).collect();
    of_conversation(&turns)
}
