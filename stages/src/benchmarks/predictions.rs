//! Answers made elsewhere, and the questions they belong to.
//!
//! | file | by | the answer is |
//! |---|---|---|
//! | `*_samples_*.jsonl`, JSONL or JSON with `doc` | lmms-eval | `filtered_resps`, or `resps` |
//! | TSV, XLSX | VLMEvalKit | `prediction` |
//! | JSONL, JSON | anyone | `prediction`, `response`, `output` or `text`, else `answer` |
//!
//! The first two hold the questions, too. With a benchmark's own files, an answer belongs to the question of its `doc_id` (a
//! number of a row), or of its index, together with the question's words where several have one index.

use super::item::Item;
use super::record::Record;
use llavm_pipeline::StageError;
use serde_json::Value;
use std::collections::BTreeMap;

/// Names of the answer's column, the surest first.
const ANSWER: [&str; 5] = ["prediction", "response", "output", "text", "model_answer"];

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// What the model wrote.
    pub text: String,
    /// The number of the question's row.
    doc_id: Option<usize>,
    /// What else its file says of it.
    record: Record,
}

impl Answer {
    /// The answer in a row of a file.
    pub fn of(record: Record, row: usize) -> Result<Self, StageError> {
        let doc_id = record.text(&["doc_id"]).and_then(|text| text.parse().ok());
        let responses = record.get("filtered_resps").or_else(|| record.get("resps"));
        let text = match responses {
            Some(responses) => first_text(responses),
            None => record.text(&ANSWER).or_else(|| record.text(&["answer"])),
        };
        let missing = || {
            let has: Vec<&str> = record.0.keys().map(String::as_str).collect();
            StageError::new(format!(
                "row {}: there is no `prediction`; the columns are {}",
                row + 1,
                has.join(", ")
            ))
        };
        let text = text.or_else(|| record.get("prediction").map(|_| String::new())).ok_or_else(missing)?;
        let record = match record.get("doc") {
            Some(Value::Object(doc)) => Record(doc.clone()),
            _ => record,
        };
        Ok(Self { text, doc_id, record })
    }
}

/// The first text in lists of lists.
fn first_text(value: &Value) -> Option<String> {
    match value {
        Value::Array(items) => items.iter().find_map(first_text),
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Questions with their answers.
#[derive(Debug, Default)]
pub struct Paired {
    /// The questions.
    pub items: Vec<Item>,
    /// Their answers.
    pub answers: Vec<String>,
}

/// The questions that the answers' own file holds.
pub fn own_questions(answers: Vec<Answer>) -> Result<Paired, StageError> {
    let mut paired = Paired::default();
    for (row, answer) in answers.into_iter().enumerate() {
        let item = Item::of(answer.record, answer.doc_id.unwrap_or(row)).map_err(|why| {
            StageError::new(format!("row {}: {why}", row + 1))
                .help("Give the benchmark's own files with --data, so that the answers have their questions.")
        })?;
        paired.items.push(item);
        paired.answers.push(answer.text);
    }
    Ok(paired)
}

/// Gives every question its answer. Without `partial`, every question must have one.
pub fn pair(items: Vec<Item>, answers: Vec<Answer>, partial: bool) -> Result<Paired, StageError> {
    let mut by_index: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (row, item) in items.iter().enumerate() {
        by_index.entry(item.index.clone()).or_default().push(row);
    }
    let mut found: Vec<Option<String>> = vec![None; items.len()];
    for (n, answer) in answers.into_iter().enumerate() {
        let row = row_of(&answer, n, &items, &by_index)?;
        if found[row].replace(answer.text).is_some() {
            let text = format!("row {}: the question {} has an answer already", n + 1, items[row].index);
            return Err(StageError::new(text));
        }
    }
    let missing: Vec<&str> = items
        .iter()
        .zip(&found)
        .filter(|(_, answer)| answer.is_none())
        .map(|(item, _)| item.index.as_str())
        .collect();
    if let Some(first) = missing.first().filter(|_| !partial) {
        let text =
            format!("{} of {} questions have no answer, {first} the first", missing.len(), items.len());
        return Err(StageError::new(text).help("Score those that have one with --partial."));
    }
    let pairs = items.into_iter().zip(found).filter_map(|(item, answer)| Some((item, answer?)));
    let (items, answers) = pairs.unzip();
    Ok(Paired { items, answers })
}

fn row_of(
    answer: &Answer,
    n: usize,
    items: &[Item],
    by_index: &BTreeMap<String, Vec<usize>>,
) -> Result<usize, StageError> {
    if let Some(row) = answer.doc_id {
        let text =
            || StageError::new(format!("row {}: doc_id is {row}, of {} questions", n + 1, items.len()));
        return (row < items.len()).then_some(row).ok_or_else(text);
    }
    let index = answer.record.text(&["index", "question_id", "questionId", "id"]);
    let index = index.ok_or_else(|| {
        StageError::new(format!("row {}: nothing says which question it answers", n + 1))
            .help("Give it `index`, `question_id`, `id` or `doc_id`.")
    })?;
    let unknown = || StageError::new(format!("row {}: no question has the index {index}", n + 1));
    let rows = by_index.get(&index).ok_or_else(unknown)?;
    let [row] = rows.as_slice() else {
        let question = answer.record.text(&["question"]).unwrap_or_default();
        let asked = rows.iter().find(|row| items[**row].question == question);
        return asked.copied().ok_or_else(|| {
            StageError::new(format!("row {}: {} questions have the index {index}", n + 1, rows.len()))
                .help("Give the answers `question` or `doc_id`, too.")
        });
    };
    Ok(*row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(value: Value) -> Record {
        let Value::Object(fields) = value else { panic!() };
        Record(fields)
    }

    fn item(value: Value) -> Item {
        Item::of(record(value), 0).unwrap()
    }

    fn answer(value: Value) -> Answer {
        Answer::of(record(value), 0).unwrap()
    }

    #[test]
    fn answers_are_found_in_every_form() {
        let lmms = answer(json!({"doc_id": 1, "filtered_resps": [["B"]], "resps": [["B."]], "target": "B",
            "doc": {"question": "?", "answer": "B"}}));
        assert_eq!((lmms.text.as_str(), lmms.doc_id), ("B", Some(1)));
        assert_eq!(own_questions(vec![lmms]).unwrap().items[0].answer(), "B");
        assert_eq!(answer(json!({"index": 3, "prediction": "x", "answer": "B"})).text, "x");
        assert_eq!(answer(json!({"id": 3, "answer": "x"})).text, "x");
        assert_eq!(answer(json!({"id": 3, "prediction": null})).text, "");
        let error = Answer::of(record(json!({"id": 3})), 4).unwrap_err().to_string();
        assert_eq!(error, "row 5: there is no `prediction`; the columns are id");
    }

    #[test]
    fn answers_find_their_questions_by_row_index_or_words() {
        let items = || {
            vec![
                item(json!({"question_id": "a", "question": "1?", "answer": "Yes"})),
                item(json!({"question_id": "a", "question": "2?", "answer": "No"})),
                item(json!({"question_id": "b", "question": "3?", "answer": "No"})),
            ]
        };
        let answers = vec![
            answer(json!({"question_id": "b", "prediction": "three"})),
            answer(json!({"question_id": "a", "question": "2?", "prediction": "two"})),
            answer(json!({"doc_id": 0, "prediction": "one"})),
        ];
        assert_eq!(pair(items(), answers.clone(), false).unwrap().answers, ["one", "two", "three"]);
        let failed = |answers: Vec<Answer>| pair(items(), answers, false).unwrap_err().to_string();
        assert_eq!(failed(answers[..1].to_vec()), "2 of 3 questions have no answer, a the first");
        assert_eq!(pair(items(), answers[..1].to_vec(), true).unwrap().items.len(), 1);
        assert_eq!(failed(vec![answers[0].clone(); 2]), "row 2: the question b has an answer already");
        assert_eq!(
            failed(vec![answer(json!({"id": "c", "text": ""}))]),
            "row 1: no question has the index c"
        );
        assert_eq!(
            failed(vec![answer(json!({"id": "a", "text": ""}))]),
            "row 1: 2 questions have the index a"
        );
        assert_eq!(
            failed(vec![answer(json!({"doc_id": 9, "text": ""}))]),
            "row 1: doc_id is 9, of 3 questions"
        );
        assert_eq!(
            failed(vec![answer(json!({"text": ""}))]),
            "row 1: nothing says which question it answers"
        );
    }
}
