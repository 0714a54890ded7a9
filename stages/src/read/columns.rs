//! Which raw columns become which part of a row.
//!
//! In: the manifest's `columns` and `conversation`, and the columns that the files have. Out: a [`Mapping`] in which every name
//! is known to exist, or an error that lists what there is.

use super::raw::RawColumn;
use llavm_pipeline::StageError;
use llavm_pipeline::manifest::nearest;
use serde::{Deserialize, Serialize};

/// The output columns that are made of raw ones.
pub const MADE: [&str; 6] = ["images", "messages", "id", "language", "source", "group"];

/// How a row holds its conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conversation {
    /// Two text columns: `prompt` and `answer`.
    #[default]
    PromptAnswer,
    /// One column `messages`: a list of `{role, content}`.
    Messages,
    /// Two lists of messages: `prompt` and `completion`.
    PromptCompletion,
    /// One column `conversations`: a list of `{from, value}`, or JSON text of one.
    Llava,
}

impl Conversation {
    /// The keys of `columns` that hold the conversation; each is also the name of the column when the manifest says nothing.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::PromptAnswer => &["prompt", "answer"],
            Self::Messages => &["messages"],
            Self::PromptCompletion => &["prompt", "completion"],
            Self::Llava => &["conversations"],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::PromptAnswer => "prompt-answer",
            Self::Messages => "messages",
            Self::PromptCompletion => "prompt-completion",
            Self::Llava => "llava",
        }
    }
}

/// `columns`: names or dotted paths (`image.bytes`, `caption.0`) of raw columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnNames {
    /// The image or images. Default: `image` or `images` where the files have it.
    pub image: Option<String>,
    /// The question, or the list of messages up to the answer.
    pub prompt: Option<String>,
    /// The answer to train on.
    pub answer: Option<String>,
    pub messages: Option<String>,
    /// The list of messages to train on.
    pub completion: Option<String>,
    pub conversations: Option<String>,
    /// What names the row in reports. Default: `<file name>#<row in file>`.
    pub id: Option<String>,
    /// A system message of its own, put before the other turns. Default: `system` where the files have it; "" for none.
    pub system: Option<String>,
    /// Turns before the prompt: a list of pairs of a question and an answer. Default: `history` where the files have it; "" for none.
    pub history: Option<String>,
    /// The tools on offer: a list of definitions, or JSON text of one. Default: `tools` where the files have it; "" for none.
    pub tools: Option<String>,
    /// What the prompt is about, put on a line of its own behind it. Default: `input` where the prompt is `instruction` (alpaca).
    pub input: Option<String>,
    /// Language of the texts, for slices of reports.
    pub language: Option<String>,
    /// Where the row came from, for slices of reports.
    pub source: Option<String>,
    /// What rows of one group share: `shard` puts them on one side of the split. Default: their images.
    pub group: Option<String>,
}

/// What the image column is called where the manifest does not say it.
const USUAL_IMAGE: [&str; 2] = ["image", "images"];

impl ColumnNames {
    fn get(&self, key: &str) -> Option<&str> {
        let name = match key {
            "prompt" => &self.prompt,
            "answer" => &self.answer,
            "messages" => &self.messages,
            "completion" => &self.completion,
            _ => &self.conversations,
        };
        name.as_deref()
    }

    /// What the rows are searched for: by column that is wanted, the names it may have.
    pub fn sought(&self, conversation: Conversation) -> Vec<Vec<&str>> {
        let image = self.image.as_deref().map_or_else(|| USUAL_IMAGE.to_vec(), |name| vec![name]);
        let texts = conversation.keys().iter().map(|key| self.get(key).unwrap_or(key));
        let reported = [
            &self.id,
            &self.language,
            &self.source,
            &self.group,
            &self.system,
            &self.history,
            &self.tools,
            &self.input,
        ];
        let reported = reported.into_iter().flatten().map(String::as_str).filter(|name| !name.is_empty());
        // What is used where it is there has to be looked for as well.
        let usual = self.usual().into_iter().map(|(_, name)| name);
        texts.chain(reported).chain(usual).map(|name| vec![name]).chain([image]).collect()
    }

    /// Columns that are used where they are there, though the manifest does not name them.
    fn usual(&self) -> Vec<(&'static str, &'static str)> {
        let named = [("system", &self.system), ("history", &self.history), ("tools", &self.tools)];
        let unnamed = named.into_iter().filter(|(_, name)| name.is_none());
        let mut usual: Vec<_> = unnamed.map(|(name, _)| (name, name)).collect();
        if self.input.is_none()
            && self.prompt.as_deref() == Some("instruction")
            && self.answer.as_deref() != Some("input")
        {
            usual.push(("input", "input"));
        }
        usual
    }

    /// Keys that `conversation` has no use for.
    pub fn misplaced(&self, conversation: Conversation) -> Option<String> {
        let all = ["prompt", "answer", "messages", "completion", "conversations"];
        let wrong = all.iter().find(|key| self.get(key).is_some() && !conversation.keys().contains(key))?;
        let kinds = [
            Conversation::PromptAnswer,
            Conversation::Messages,
            Conversation::PromptCompletion,
            Conversation::Llava,
        ];
        let fitting: Vec<_> = kinds
            .iter()
            .filter(|kind| kind.keys().contains(wrong))
            .map(|kind| format!("\"{}\"", kind.name()))
            .collect();
        Some(format!(
            "`{wrong}` has no meaning with conversation = \"{}\", which takes {}; it belongs to conversation = {}",
            conversation.name(),
            conversation.keys().join(", "),
            fitting.join(" or "),
        ))
    }
}

/// The columns to read, all of which exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mapping {
    pub conversation: Conversation,
    pub image: Option<String>,
    /// One name for each key of the conversation, in its order; a `prompt` may be missing where `prompts` are given.
    pub texts: Vec<Option<String>>,
    pub system: Option<String>,
    pub history: Option<String>,
    pub tools: Option<String>,
    pub input: Option<String>,
    pub id: Option<String>,
    pub language: Option<String>,
    pub source: Option<String>,
    pub group: Option<String>,
}

impl Mapping {
    /// Matches `names` with the columns of one file; `file` is named in errors.
    pub fn new(
        names: &ColumnNames,
        conversation: Conversation,
        has_prompts: bool,
        file: &str,
        columns: &[RawColumn],
    ) -> Result<Self, StageError> {
        let found = |name: &str| -> Result<String, StageError> {
            if exists(name, columns) { Ok(name.to_owned()) } else { Err(no_column(name, file, columns)) }
        };
        let given = |name: &Option<String>| name.as_deref().map(found).transpose();
        let text = |key: &&str| match names.get(key) {
            Some(name) => found(name).map(Some),
            None if *key == "prompt" && has_prompts && !exists(key, columns) => Ok(None),
            None => found(key).map(Some),
        };
        let usual = names.usual();
        let extra = |key: &str, name: &Option<String>| -> Result<Option<String>, StageError> {
            let usual = usual.iter().find(|(other, _)| *other == key).map(|(_, name)| *name);
            let usual =
                usual.filter(|name| columns.iter().any(|column| column.name == *name && column.is_text()));
            // An empty name says that no column is that.
            let name = name.clone().filter(|name| !name.is_empty());
            Ok(given(&name)?.or(usual.map(str::to_owned)))
        };
        let usual_image = USUAL_IMAGE.iter().find(|name| exists(name, columns));
        let image = match &names.image {
            Some(name) => Some(found(name)?),
            None => usual_image.map(|name| (*name).to_owned()),
        };
        Ok(Self {
            conversation,
            image,
            texts: conversation.keys().iter().map(text).collect::<Result<_, _>>()?,
            system: extra("system", &names.system)?,
            history: extra("history", &names.history)?,
            tools: extra("tools", &names.tools)?,
            input: extra("input", &names.input)?,
            id: given(&names.id)?,
            language: given(&names.language)?,
            source: given(&names.source)?,
            group: given(&names.group)?,
        })
    }

    /// For files without a readable row.
    pub fn unchecked(names: &ColumnNames, conversation: Conversation) -> Self {
        let text = |key: &&str| names.get(key).map(str::to_owned);
        Self {
            conversation,
            image: names.image.clone(),
            texts: conversation.keys().iter().map(text).collect(),
            system: names.system.clone(),
            history: names.history.clone(),
            tools: names.tools.clone(),
            input: names.input.clone(),
            id: names.id.clone(),
            language: names.language.clone(),
            source: names.source.clone(),
            group: names.group.clone(),
        }
    }

    /// The first column it needs that is not among `columns`.
    pub fn first_missing(&self, columns: &[RawColumn]) -> Option<String> {
        self.needed(&MADE).into_iter().find(|name| !exists(name, columns))
    }

    /// The raw columns that the named output columns are made of.
    pub fn needed(&self, output: &[&str]) -> Vec<String> {
        let mut needed = Vec::new();
        for column in output {
            match *column {
                "id" => needed.extend(self.id.clone()),
                "images" | "image_digests" | "n_images" => match &self.image {
                    Some(image) => needed.push(image.clone()),
                    // Then the conversation may hold them.
                    None => needed.extend(self.needed(&["messages"])),
                },
                "messages" => {
                    let extra = [&self.system, &self.history, &self.tools, &self.input];
                    needed.extend(self.texts.iter().chain(extra).flatten().cloned());
                }
                "language" => needed.extend(self.language.clone()),
                "source" => needed.extend(self.source.clone()),
                "group" => match &self.group {
                    Some(group) => needed.push(group.clone()),
                    None => needed.extend(self.needed(&["images"])),
                },
                _ => {}
            }
        }
        needed
    }
}

/// Whether `path` leads to a column: itself, or the rest is an index into a list.
pub fn exists(path: &str, columns: &[RawColumn]) -> bool {
    let named = |name: &str| columns.iter().any(|column| column.name == name);
    match path.rsplit_once('.') {
        _ if named(path) => true,
        Some((parent, index)) if index.bytes().all(|byte| byte.is_ascii_digit()) => exists(parent, columns),
        _ => false,
    }
}

/// The error for a name that no column has.
pub fn no_column(name: &str, file: &str, columns: &[RawColumn]) -> StageError {
    let near = nearest(name, columns.iter().map(|column| column.name.as_str()));
    let near = near.map_or_else(String::new, |near| format!(" Did you mean `{near}`?"));
    let listed: Vec<_> = columns
        .iter()
        .filter(|column| !column.name.contains('.'))
        .map(|column| format!("\n  {}: {}", column.name, column.kind))
        .collect();
    StageError::new(format!("{file} has no column `{name}`.{near} Its columns:{}", listed.concat()))
        .help("Name the right one in `columns`; a field inside a struct is written with a dot, as in `image.bytes`.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<RawColumn> {
        [
            ("image", "struct<bytes: binary, path: string>"),
            ("image.bytes", "binary"),
            ("input", "string"),
            ("caption", "list<string>"),
        ]
        .map(|(name, kind)| RawColumn::new(name, kind))
        .to_vec()
    }

    fn mapping(names: &ColumnNames) -> Result<Mapping, StageError> {
        Mapping::new(names, Conversation::PromptAnswer, false, "train.parquet", &columns())
    }

    #[test]
    fn a_wrong_name_lists_the_columns_that_exist() {
        let names = ColumnNames { prompt: Some("inputs".into()), ..ColumnNames::default() };
        insta::assert_snapshot!(mapping(&names).unwrap_err(), @r"
        train.parquet has no column `inputs`. Did you mean `input`? Its columns:
          image: struct<bytes: binary, path: string>
          input: string
          caption: list<string>
        ");
    }

    #[test]
    fn paths_reach_into_structs_and_lists() {
        let names = ColumnNames {
            image: Some("image.bytes".into()),
            prompt: Some("input".into()),
            answer: Some("caption.0".into()),
            ..ColumnNames::default()
        };
        let mapping = mapping(&names).unwrap();
        assert_eq!(mapping.needed(&["messages"]), ["input", "caption.0"]);
        assert_eq!(mapping.needed(&["images"]), ["image.bytes"]);
    }

    #[test]
    fn a_key_of_another_layout_says_where_it_belongs() {
        let names = ColumnNames { messages: Some("messages".into()), ..ColumnNames::default() };
        insta::assert_snapshot!(
            names.misplaced(Conversation::PromptAnswer).unwrap(),
            @r#"`messages` has no meaning with conversation = "prompt-answer", which takes prompt, answer; it belongs to conversation = "messages""#
        );
        assert_eq!(names.misplaced(Conversation::Messages), None);
    }
}
