//! `clean-text`: Unicode normal forms, and Chinese characters in one script.
//!
//! In: `messages` list<struct<role: utf8, content: utf8>>. Out: `messages`, with the content of every turn changed; all other columns
//! pass through.
//!
//! Without this stage texts reach the tokenizer as they are; Qwen3's tokenizer composes them (NFC) itself, and nothing else is
//! changed. `nfkc` also makes full-width letters, digits and marks half-width (`Ａ１，` becomes `A1,`), which Chinese typography
//! does not want in running text: use it for sets that mix both at random. What it unfolds to `<image>` or a special token counts as such.

use crate::arrays::column;
use crate::row::{message_fields, messages_type};
use arrow::array::{Array, ArrayRef, ListArray, RecordBatch, StringArray, StructArray};
use ferrous_opencc::OpenCC;
use ferrous_opencc::config::BuiltinConfig;
use llavm_pipeline::stage::{Apply, MapStage, OpenContext, Parameters, StageKind};
use llavm_pipeline::{Columns, Rejects, StageError};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokenizers::NormalizedString;

/// Parameters of `clean-text`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CleanText {
    /// Unicode normal form: `nfc` or `nfkc`. Default: none.
    #[serde(default)]
    pub normalize: Option<Normalize>,
    /// Chinese script: `t2s` (traditional to simplified) or `s2t`. Default: as written.
    #[serde(default)]
    pub convert: Option<Convert>,
}

/// A Unicode normal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalize {
    Nfc,
    Nfkc,
}

/// From which Chinese script to which, by the tables of `OpenCC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Convert {
    T2s,
    S2t,
}

impl StageKind for CleanText {
    const KIND: &'static str = "clean-text";
    const VERSION: u32 = 3;
    const ABOUT: &'static str = "bring texts into one Unicode form and Chinese into one script";
}

impl Parameters for CleanText {
    fn check(&self) -> Vec<(&'static str, String)> {
        let nothing = self.normalize.is_none() && self.convert.is_none();
        let text = || ("normalize", "nothing to do: set `normalize`, `convert` or both".to_owned());
        nothing.then(text).into_iter().collect()
    }
}

impl MapStage for CleanText {
    fn input(&self) -> Columns {
        Columns::new().with("messages", messages_type())
    }

    fn output(&self) -> Columns {
        self.input()
    }

    fn passes_through(&self) -> bool {
        true
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        let tables = self.convert.map(|convert| match convert {
            Convert::T2s => BuiltinConfig::T2s,
            Convert::S2t => BuiltinConfig::S2t,
        });
        let converter = tables.map(OpenCC::from_config).transpose().map_err(|cause| {
            StageError::new(format!("the tables of Chinese characters cannot be loaded: {cause}"))
        })?;
        Ok(Box::new(Cleaner { normalize: self.normalize, converter }))
    }
}

struct Cleaner {
    normalize: Option<Normalize>,
    converter: Option<OpenCC>,
}

impl Cleaner {
    fn clean(&self, text: &str) -> String {
        let mut normal = NormalizedString::from(text);
        match self.normalize {
            Some(Normalize::Nfc) => normal.nfc(),
            Some(Normalize::Nfkc) => normal.nfkc(),
            None => &mut normal,
        };
        match &self.converter {
            Some(converter) => converter.convert(normal.get()),
            None => normal.get().to_owned(),
        }
    }
}

impl Apply for Cleaner {
    fn apply(&self, rows: &RecordBatch, _rejects: &mut Rejects) -> Result<RecordBatch, StageError> {
        let lists: &ListArray = column(rows, "messages")?;
        let wrong = || StageError::new("`messages` is not list<struct<role: utf8, content: utf8>>");
        let turns = lists.values().as_any().downcast_ref::<StructArray>().ok_or_else(wrong)?;
        let text = |name: &str| turns.column_by_name(name).and_then(|column| column.as_any().downcast_ref());
        let (roles, contents): (&StringArray, &StringArray) =
            text("role").zip(text("content")).ok_or_else(wrong)?;
        let cleaned: StringArray = contents.iter().map(|text| text.map(|text| self.clean(text))).collect();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(roles.clone()), Arc::new(cleaned)];
        for beside in ["tool_calls", "extra", "tools"] {
            columns.push(Arc::clone(turns.column_by_name(beside).ok_or_else(wrong)?));
        }
        let turns = StructArray::try_new(message_fields(), columns, turns.nulls().cloned())?;
        let arrow::datatypes::DataType::List(item) = messages_type() else { return Err(wrong()) };
        let lists =
            ListArray::try_new(item, lists.offsets().clone(), Arc::new(turns), lists.nulls().cloned())?;
        Ok(RecordBatch::try_new(
            Columns::new().with("messages", messages_type()).schema(),
            vec![Arc::new(lists)],
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(text: &str, normalize: Option<Normalize>, convert: Option<Convert>) -> String {
        let converter = convert.map(|convert| {
            OpenCC::from_config(if convert == Convert::T2s { BuiltinConfig::T2s } else { BuiltinConfig::S2t })
                .unwrap()
        });
        Cleaner { normalize, converter }.clean(text)
    }

    #[test]
    fn widths_change_only_with_nfkc() {
        let text = "Ａ１，（图）！cafe\u{301}😺";
        assert_eq!(clean(text, Some(Normalize::Nfc), None), "Ａ１，（图）！café😺");
        assert_eq!(clean(text, Some(Normalize::Nfkc), None), "A1,(图)!café😺");
        assert_eq!(clean(text, None, None), text);
    }

    #[test]
    fn scripts_are_converted_by_words_not_by_characters() {
        assert_eq!(clean("一隻貓在鏡頭前。", None, Some(Convert::T2s)), "一只猫在镜头前。");
        // 发 is 髮 in hair, 發 in send.
        assert_eq!(clean("头发和发送", None, Some(Convert::S2t)), "頭髮和發送");
        assert_eq!(clean("a cat <image>", None, Some(Convert::S2t)), "a cat <image>");
    }

    #[test]
    fn nothing_to_do_is_reported() {
        let stage: CleanText = serde_json::from_str("{}").unwrap();
        assert_eq!(stage.check().len(), 1);
    }
}
