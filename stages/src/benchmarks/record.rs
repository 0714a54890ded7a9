//! A row of a benchmark's file, by column.

use serde_json::{Map, Value};

/// What pandas reads as no value (`read_csv`'s default `na_values`), and VLMEvalKit therefore does.
const NOTHING: [&str; 19] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
    "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
];

/// Whether a cell of a TSV holds nothing.
pub fn is_nothing(text: &str) -> bool {
    NOTHING.contains(&text)
}

/// A row: the names of columns are as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record(pub Map<String, Value>);

impl Record {
    /// The column `name`, whatever its case.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let found = self.0.get(name);
        found.or_else(|| {
            self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        })
    }

    /// The text of the first of `names` that has one: numbers as they are written, lists not.
    pub fn text(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| text_of(self.get(name)?))
    }

    /// The texts of a list, or of a list as Python writes it; one text is a list of one.
    pub fn list(&self, name: &str) -> Vec<String> {
        match self.get(name) {
            Some(Value::Array(items)) => items.iter().filter_map(text_of).collect(),
            Some(Value::String(text)) => python_list(text).unwrap_or_else(|| vec![text.clone()]),
            Some(other) => text_of(other).into_iter().collect(),
            None => Vec::new(),
        }
    }
}

/// A value as text.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(whole(number)),
        Value::Bool(yes) => Some(if *yes { "True" } else { "False" }.to_owned()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// 3 for 3.0: spreadsheets know no other numbers.
fn whole(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() < 1e15 => format!("{value:.0}"),
        _ => number.to_string(),
    }
}

/// The strings of `['a', "it's", 'c']`; `None` when it is no such list.
fn python_list(text: &str) -> Option<Vec<String>> {
    let mut rest = text.trim().strip_prefix('[')?.trim_start();
    let mut items = Vec::new();
    loop {
        if let Some(end) = rest.strip_prefix(']') {
            return end.trim().is_empty().then_some(items);
        }
        let (item, after) = python_string(rest)?;
        items.push(item);
        rest = after.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
}

/// A quoted string at the beginning of `text`, and what follows it.
fn python_string(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|letter| *letter == '\'' || *letter == '"')?;
    let mut out = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => match letters.next()?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                letter @ ('\\' | '\'' | '"') => out.push(letter),
                other => out.extend(['\\', other]),
            },
            letter if letter == quote => return Some((out, &text[at + 1..])),
            letter => out.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(value: Value) -> Record {
        match value {
            Value::Object(fields) => Record(fields),
            _ => panic!(),
        }
    }

    #[test]
    fn lists_are_read_as_json_and_as_python_writes_them() {
        let row = record(
            json!({"a": ["x", 2], "b": "['x', \"it's\", 'a\\'b\\n']", "c": "[1] no list", "d": 3.0, "e": "[]"}),
        );
        assert_eq!(row.list("a"), ["x", "2"]);
        assert_eq!(row.list("b"), ["x", "it's", "a'b\n"]);
        assert_eq!(row.list("c"), ["[1] no list"]);
        assert_eq!(row.list("d"), ["3"]);
        assert!(row.list("e").is_empty() && row.list("f").is_empty());
    }

    #[test]
    fn columns_are_found_whatever_their_case() {
        let row = record(json!({"L2-category": "x", "index": 12, "A": "apple", "a": "small"}));
        assert_eq!(row.text(&["l2-category"]).as_deref(), Some("x"));
        assert_eq!(row.text(&["question_id", "index"]).as_deref(), Some("12"));
        assert_eq!(row.text(&["A"]).as_deref(), Some("apple"));
        assert_eq!(row.text(&["none"]), None);
    }
}
