//! A benchmark's question, whichever of the layouts it comes from.
//!
//! | | VLMEvalKit's TSV | lmms-eval's Parquet, and the `doc` of its samples |
//! |---|---|---|
//! | index | `index` | `question_id`, `index`, `id`, `questionId` |
//! | options | columns `A`, `B` … | the same, or a list `choices` or `options`, or `choice_a` … |
//! | answer | a letter, or words | the same, or the number of an option |
//! | several answers | `answer`, a list as Python writes it | a list `answer`, `answers` or `caption` |
//! | category | `category`, `l2-category` | `category`, `L2-category`, `l2_category`, `subcategory` |
//!
//! HallusionBench's rows have `gt_answer` (1 for yes, 0 for no) there, and an index only together with those of figure and set.

use super::record::{Record, is_nothing};

/// A question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Item {
    /// Its name in the benchmark.
    pub index: String,
    /// As written.
    pub question: String,
    /// What is known beforehand.
    pub hint: Option<String>,
    /// Letters with what stands beside them, in order; cells that hold nothing, too.
    pub options: Vec<(char, String)>,
    /// The right answers: of questions with options the letter.
    pub answers: Vec<String>,
    /// What kind of question it is.
    pub category: Option<String>,
    /// The finer or coarser kind.
    pub l2_category: Option<String>,
    /// What stands for the image: questions with the same are about the same.
    pub image: Option<String>,
    /// The digests of the images that the row holds.
    pub images: Vec<String>,
    /// All columns.
    pub record: Record,
}

impl Item {
    /// The question in a row; the number of the row is its name where it has none.
    pub fn of(record: Record, row: usize) -> Result<Self, String> {
        let text = |names: &[&str]| record.text(names);
        let some = |names: &[&str]| text(names).filter(|text| !is_nothing(text));
        let question = text(&["question"]).unwrap_or_default();
        let options = options(&record);
        let answers = answers(&record, &options);
        if answers.is_empty() {
            let has: Vec<&str> = record.0.keys().map(String::as_str).collect();
            return Err(format!("there is no `answer`; the columns are {}", has.join(", ")));
        }
        Ok(Self {
            index: hallusion_index(&record)
                .or_else(|| text(&["index", "question_id", "questionId", "id", "img_id"]))
                .unwrap_or_else(|| row.to_string()),
            question,
            hint: some(&["hint"]),
            options,
            answers,
            category: some(&["category", "data_type"]),
            l2_category: some(&["l2-category", "l2_category", "subcategory"]),
            images: record.list("image"),
            image: some(&["image_path", "image_id", "imageId", "image_source"]),
            record,
        })
    }

    /// The right answer: the first.
    pub fn answer(&self) -> &str {
        self.answers.first().map_or("", String::as_str)
    }

    /// The options that hold something, as VLMEvalKit counts them.
    pub fn choices(&self) -> impl Iterator<Item = (char, &str)> {
        self.options
            .iter()
            .map(|(letter, text)| (*letter, text.as_str()))
            .filter(|(_, text)| !is_nothing(text))
    }

    /// The text of a column.
    pub fn field(&self, name: &str) -> String {
        self.record.text(&[name]).unwrap_or_default()
    }
}

/// `VD_figure_1_0_1_0`, as VLMEvalKit writes it: kind, kind, whether there is a figure, set, figure, question.
fn hallusion_index(record: &Record) -> Option<String> {
    let names = ["category", "subcategory", "visual_input", "set_id", "figure_id", "question_id"];
    let parts = names.map(|name| record.text(&[name]));
    parts.into_iter().collect::<Option<Vec<String>>>().map(|parts| parts.join("_"))
}

fn options(record: &Record) -> Vec<(char, String)> {
    for name in ["choices", "options"] {
        let listed = record.list(name);
        if listed.len() > 1 {
            return ('A'..='Z').zip(listed).collect();
        }
    }
    let column = |letter: char| {
        let upper = record.0.get(&letter.to_string());
        let named = format!("choice_{}", letter.to_ascii_lowercase());
        let value = upper.cloned().or_else(|| record.0.get(&named).cloned());
        let row = Record([("x".to_owned(), value?)].into_iter().collect());
        row.text(&["x"]).map(|text| (letter, text))
    };
    ('A'..='Z').filter_map(column).collect()
}

fn answers(record: &Record, options: &[(char, String)]) -> Vec<String> {
    let named = ["answers", "answer", "caption"].into_iter().map(|name| record.list(name));
    let answers = named.into_iter().find(|answers| !answers.is_empty()).unwrap_or_default();
    if answers.is_empty() {
        let yes_no = |text: String| if text == "1" { "Yes" } else { "No" }.to_owned();
        return record.text(&["gt_answer"]).map(yes_no).into_iter().collect();
    }
    // A number beside listed options is that of the right one.
    let listed =
        record.get("choices").or_else(|| record.get("options")).is_some_and(serde_json::Value::is_array);
    match answers.as_slice() {
        [one] if listed => {
            let letter = one.parse().ok().and_then(|number: usize| options.get(number));
            vec![letter.map_or_else(|| one.clone(), |(letter, _)| letter.to_string())]
        }
        _ => answers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn item(value: Value) -> Item {
        let Value::Object(fields) = value else { panic!() };
        Item::of(Record(fields), 7).unwrap()
    }

    #[test]
    fn both_layouts_give_the_same_question() {
        let tsv =
            item(json!({"index": 3, "question": "Which?", "A": "cat", "B": "dog", "C": "", "answer": "B",
            "category": "animals", "l2-category": "x"}));
        let listed =
            item(json!({"question_id": "3", "question": "Which?", "choices": ["cat", "dog"], "answer": 1}));
        let columns =
            item(json!({"question_id": "3", "question": "Which?", "choice_a": "cat", "choice_b": "dog",
            "choice_c": "", "answer": "B", "data_type": "image"}));
        for item in [&tsv, &listed, &columns] {
            assert_eq!((item.index.as_str(), item.answer()), ("3", "B"));
            assert_eq!(item.choices().collect::<Vec<_>>(), [('A', "cat"), ('B', "dog")]);
        }
        assert_eq!((tsv.category.as_deref(), tsv.l2_category.as_deref()), (Some("animals"), Some("x")));
        assert_eq!(item(json!({"question": "?", "answer": "['a', 'b']"})).answers, ["a", "b"]);
        assert_eq!(item(json!({"answers": ["a", "b", "c"]})).index, "7");
        let flickr = item(json!({"caption": ["A dog.", "Dogs."], "img_id": "12", "filename": "12.jpg"}));
        assert_eq!((flickr.answers.len(), flickr.index.as_str()), (2, "12"));
        let hallusion =
            item(json!({"category": "VD", "subcategory": "figure", "visual_input": "1", "set_id": "0",
            "figure_id": "1", "question_id": "2", "question": "?", "gt_answer": "1"}));
        assert_eq!((hallusion.answer(), hallusion.index.as_str()), ("Yes", "VD_figure_1_0_1_2"));
    }

    #[test]
    fn a_row_without_an_answer_says_which_columns_it_has() {
        let Value::Object(fields) = json!({"index": 1, "question": "?"}) else { panic!() };
        assert_eq!(
            Item::of(Record(fields), 0).unwrap_err(),
            "there is no `answer`; the columns are index, question"
        );
    }
}
