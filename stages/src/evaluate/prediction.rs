//! `predictions.parquet`: a row for each question.
//!
//! | column | type | |
//! |---|---|---|
//! | `id`, `turn` | utf8, u32 | the source row, and which of its questions (from 0) |
//! | `image` | utf8, null | digest (BLAKE3) of the pixels that were shown; null without an image |
//! | `question`, `reference`, `answer` | utf8 | the answer is greedy |
//! | `references` | list&lt;utf8&gt;, null | all right answers, where there are several; `reference` is the first |
//! | `loss` | f64 | nats per answer token of the reference, teacher-forced |
//! | `answer_tokens`, `correct_tokens` | u32 | tokens of the reference, and how many were the likeliest |
//! | `exact` | bool | see `metrics/exact.rs` |
//! | `rouge_l`, `cider_d` | f64 | of the answer |
//! | `yes_no` | bool, null | the right answer, where the question is a yes/no question |
//! | `image_swap_id`, `image_swap_answer`, `image_swap_loss` | utf8, utf8, f64, null | shown the image of that row |
//! | `question_swap_question`, `…_reference`, `…_answer` | utf8, null | asked this about the same image |
//! | the slices' columns | utf8, null | |

use super::scores::Scores;
use crate::arrays::{column, item_range};
use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, ListArray, ListBuilder, RecordBatch, StringArray,
    StringBuilder, UInt32Array,
};
use llavm_pipeline::StageError;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

pub use super::answered::{ImageSwap, Prediction, QuestionSwap, units};

/// The file's name.
pub const PREDICTIONS: &str = "predictions.parquet";

/// Writes the file.
pub fn write(
    path: &Path,
    predictions: &[Prediction],
    scores: &Scores,
    slices: &[String],
) -> Result<(), StageError> {
    let batch = batch(predictions, scores, slices)?;
    let file = File::create(path).map_err(|cause| StageError::io(path, cause))?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let failed = |cause: parquet::errors::ParquetError| {
        StageError::new(format!("{}: {cause}", path.display())).because(cause)
    };
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).map_err(failed)?;
    writer.write(&batch).map_err(failed)?;
    writer.close().map_err(failed)?;
    Ok(())
}

fn batch(predictions: &[Prediction], scores: &Scores, slices: &[String]) -> Result<RecordBatch, StageError> {
    let text = |of: fn(&Prediction) -> Option<&str>| {
        Arc::new(predictions.iter().map(of).collect::<StringArray>()) as ArrayRef
    };
    let count = |of: fn(&Prediction) -> u32| {
        Arc::new(UInt32Array::from_iter_values(predictions.iter().map(of))) as ArrayRef
    };
    let number = |of: fn(&Prediction) -> Option<f64>| {
        Arc::new(predictions.iter().map(of).collect::<Float64Array>()) as ArrayRef
    };
    let score = |values: &[f64]| Arc::new(Float64Array::from(values.to_vec())) as ArrayRef;
    let exact: BooleanArray = scores.exact.iter().map(|exact| Some(*exact > 0.0)).collect();
    let truth: BooleanArray = scores.yes_no.iter().map(|judged| judged.map(|judged| judged.truth)).collect();
    let mut columns = vec![
        ("id", text(|row| Some(&row.id))),
        ("turn", count(|row| row.turn)),
        ("image", text(|row| row.image.as_deref())),
        ("question", text(|row| Some(&row.question))),
        ("reference", text(|row| Some(&row.reference))),
        ("references", Arc::new(references(predictions)) as ArrayRef),
        ("answer", text(|row| Some(&row.answer))),
        ("loss", number(|row| Some(row.loss))),
        ("answer_tokens", count(|row| row.answer_tokens)),
        ("correct_tokens", count(|row| row.correct_tokens)),
        ("exact", Arc::new(exact)),
        ("rouge_l", score(&scores.rouge_l)),
        ("cider_d", score(&scores.cider_d)),
        ("yes_no", Arc::new(truth)),
        ("image_swap_id", text(|row| Some(&row.image_swap.as_ref()?.id))),
        ("image_swap_answer", text(|row| Some(&row.image_swap.as_ref()?.answer))),
        ("image_swap_loss", number(|row| Some(row.image_swap.as_ref()?.loss))),
        ("question_swap_question", text(|row| Some(&row.question_swap.as_ref()?.question))),
        ("question_swap_reference", text(|row| row.question_swap.as_ref()?.reference.as_deref())),
        ("question_swap_answer", text(|row| Some(&row.question_swap.as_ref()?.answer))),
    ];
    for (n, name) in slices.iter().enumerate() {
        let values: StringArray =
            predictions.iter().map(|row| row.slices.get(n).and_then(Option::as_deref)).collect();
        columns.push((name, Arc::new(values)));
    }
    let nullable = columns.into_iter().map(|(name, values)| (name, values, true));
    Ok(RecordBatch::try_from_iter_with_nullable(nullable)?)
}

fn references(predictions: &[Prediction]) -> ListArray {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for row in predictions {
        row.references.iter().for_each(|text| lists.values().append_value(text));
        lists.append(!row.references.is_empty());
    }
    lists.finish()
}

/// The lists back; those of files that have none are empty.
fn references_of(batch: &RecordBatch) -> Result<Vec<Vec<String>>, StageError> {
    let Some(column) = batch.column_by_name("references") else {
        return Ok(vec![Vec::new(); batch.num_rows()]);
    };
    let wrong = || StageError::new("the column `references` is not list<utf8>");
    let lists = column.as_any().downcast_ref::<ListArray>().ok_or_else(wrong)?;
    let texts = lists.values().as_any().downcast_ref::<StringArray>().ok_or_else(wrong)?;
    let list = |row| item_range(lists, row).map(|at| texts.value(at).to_owned()).collect();
    Ok((0..batch.num_rows()).map(|row| if lists.is_null(row) { Vec::new() } else { list(row) }).collect())
}

/// A slice of a benchmark's answers: 1 where its rule finds the answer right, else 0.
pub const RIGHT: &str = "right";

/// The columns that are no slices.
pub const COLUMNS: [&str; 20] = [
    "id",
    "turn",
    "image",
    "question",
    "reference",
    "references",
    "answer",
    "loss",
    "answer_tokens",
    "correct_tokens",
    "exact",
    "rouge_l",
    "cider_d",
    "yes_no",
    "image_swap_id",
    "image_swap_answer",
    "image_swap_loss",
    "question_swap_question",
    "question_swap_reference",
    "question_swap_answer",
];

/// Reads the file back: the predictions, and the names of their slices.
pub fn read(path: &Path) -> Result<(Vec<Prediction>, Vec<String>), StageError> {
    let file = File::open(path).map_err(|cause| StageError::io(path, cause))?;
    let failed = |cause: String| {
        StageError::new(format!("{}: {cause}", path.display()))
            .help("Give the folder of an `evaluate` stage, or its report.json.")
    };
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(file).and_then(ParquetRecordBatchReaderBuilder::build);
    let (mut predictions, mut slices) = (Vec::new(), Vec::new());
    for batch in reader.map_err(|cause| failed(cause.to_string()))? {
        let batch = batch.map_err(|cause| failed(cause.to_string()))?;
        slices = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        slices.retain(|name| !COLUMNS.contains(&name.as_str()));
        predictions.extend(rows(&batch, &slices).map_err(|error| failed(error.to_string()))?);
    }
    Ok((predictions, slices))
}

fn rows(batch: &RecordBatch, slices: &[String]) -> Result<Vec<Prediction>, StageError> {
    let text = |name: &str| -> Result<Vec<Option<String>>, StageError> {
        Ok(column::<StringArray>(batch, name)?.iter().map(|value| value.map(str::to_owned)).collect())
    };
    let count = |name: &str| column::<UInt32Array>(batch, name);
    let number = |name: &str| column::<Float64Array>(batch, name);
    let (turns, losses, image_losses) = (count("turn")?, number("loss")?, number("image_swap_loss")?);
    let (tokens, correct) = (count("answer_tokens")?, count("correct_tokens")?);
    let texts = COLUMNS.into_iter().filter(|name| batch.column_by_name(name).is_some_and(is_text));
    let mut texts: BTreeMap<&str, Vec<Option<String>>> =
        texts.map(|name| Ok((name, text(name)?))).collect::<Result<_, StageError>>()?;
    let values: Vec<Vec<Option<String>>> = slices.iter().map(|name| text(name)).collect::<Result<_, _>>()?;
    let mut take = |name: &str, row: usize| texts.get_mut(name).and_then(|column| column[row].take());
    let mut references = references_of(batch)?;
    let row = |row: usize| Prediction {
        references: std::mem::take(&mut references[row]),
        id: take("id", row).unwrap_or_default(),
        turn: turns.value(row),
        image: take("image", row),
        question: take("question", row).unwrap_or_default(),
        reference: take("reference", row).unwrap_or_default(),
        answer: take("answer", row).unwrap_or_default(),
        loss: losses.value(row),
        answer_tokens: tokens.value(row),
        correct_tokens: correct.value(row),
        image_swap: take("image_swap_id", row).map(|id| ImageSwap {
            id,
            answer: take("image_swap_answer", row).unwrap_or_default(),
            loss: image_losses.value(row),
        }),
        question_swap: take("question_swap_question", row).map(|question| QuestionSwap {
            question,
            reference: take("question_swap_reference", row),
            answer: take("question_swap_answer", row).unwrap_or_default(),
        }),
        slices: values.iter().map(|column| column[row].clone()).collect(),
    };
    Ok((0..batch.num_rows()).map(row).collect())
}

fn is_text(column: &ArrayRef) -> bool {
    column.as_any().is::<StringArray>()
}
