//! What happened at each step: `metrics.parquet`.
//!
//! | column | type | what |
//! |---|---|---|
//! | `step` | u64 | optimiser steps taken |
//! | `epoch` | f64 | how often all rows were seen |
//! | `loss` | f64 | mean over the step's answer tokens in nats, before its update |
//! | `lr` | f64 | learning rate of the update |
//! | `grad_norm` | f64 | length of the gradient before clipping |
//! | `tokens`, `answer_tokens`, `samples` | u64 | of this step, without padding |
//! | `eval_loss`, `eval_token_accuracy` | f64 | on the validation rows after the step; null where none was measured |
//! | `benchmark_NAME` | f64 | a benchmark's first number on some of its questions, likewise; only where any was asked |
//!
//! No clock enters it: the same training writes the same bytes.

use crate::arrays::column;
use arrow::array::{Array, ArrayRef, Float64Array, RecordBatch, UInt64Array};
use llavm_model::train::StepReport;
use llavm_pipeline::StageError;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// How a benchmark's column begins.
const BENCHMARK: &str = "benchmark_";

/// One step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    pub step: u64,
    pub loss: f64,
    pub lr: f64,
    pub grad_norm: f64,
    pub tokens: u64,
    pub answer_tokens: u64,
    pub samples: u64,
    /// Loss and token accuracy on the validation rows.
    pub eval: Option<(f64, f64)>,
    /// Scores of benchmarks, by name.
    pub benchmarks: Vec<(String, f64)>,
}

/// All steps so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record(pub Vec<Entry>);

impl Entry {
    /// The score of a benchmark, where it was asked after this step.
    pub fn benchmark(&self, name: &str) -> Option<f64> {
        self.benchmarks.iter().find(|(known, _)| known == name).map(|(_, score)| *score)
    }

    pub fn new(report: &StepReport, samples: usize) -> Self {
        Self {
            step: report.step,
            loss: report.loss,
            lr: report.learning_rate,
            grad_norm: f64::from(report.grad_norm),
            tokens: report.tokens as u64,
            answer_tokens: report.answer_tokens as u64,
            samples: samples as u64,
            eval: None,
            benchmarks: Vec::new(),
        }
    }
}

impl Record {
    /// The measurement with the lowest loss, the first of several: step and loss.
    pub fn best(&self) -> Option<(u64, f64)> {
        let measured = self.0.iter().filter_map(|entry| entry.eval.map(|(loss, _)| (entry.step, loss)));
        measured.reduce(|best, next| if next.1 < best.1 { next } else { best })
    }

    /// Measurements since the best one.
    pub fn evals_since_best(&self) -> u64 {
        let best = self.best().map_or(0, |(step, _)| step);
        self.0.iter().filter(|entry| entry.step > best && entry.eval.is_some()).count() as u64
    }

    /// The benchmarks that were asked, in the order of the first measurement.
    pub fn benchmarks(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (name, _) in self.0.iter().flat_map(|entry| &entry.benchmarks) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// Rows seen.
    pub fn samples(&self) -> u64 {
        self.0.iter().map(|entry| entry.samples).sum()
    }

    /// Writes the file; `rows` are those of one epoch.
    pub fn write(&self, path: &Path, rows: u64) -> Result<(), StageError> {
        let batch = self.batch(rows)?;
        let file = File::create(path).map_err(|cause| StageError::io(path, cause))?;
        let failed = |cause| StageError::new(format!("{}: {cause}", path.display()));
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).map_err(failed)?;
        writer.write(&batch).map_err(failed)?;
        let file = writer.into_inner().map_err(failed)?;
        file.sync_all().map_err(|cause| StageError::io(path, cause))
    }

    fn batch(&self, rows: u64) -> Result<RecordBatch, StageError> {
        let floats = |of: fn(&Entry) -> f64| Arc::new(Float64Array::from_iter_values(self.0.iter().map(of)));
        let counts = |of: fn(&Entry) -> u64| Arc::new(UInt64Array::from_iter_values(self.0.iter().map(of)));
        let evals = |of: fn((f64, f64)) -> f64| {
            Arc::new(Float64Array::from_iter(self.0.iter().map(|entry| entry.eval.map(of))))
        };
        let seen = self.0.iter().scan(0, |seen, entry| {
            *seen += entry.samples;
            Some(*seen as f64 / rows.max(1) as f64)
        });
        let names = self.benchmarks();
        let titles: Vec<String> = names.iter().map(|name| format!("{BENCHMARK}{name}")).collect();
        let mut columns: Vec<(&str, ArrayRef, bool)> = vec![
            ("step", counts(|entry| entry.step), false),
            ("epoch", Arc::new(Float64Array::from_iter_values(seen)), false),
            ("loss", floats(|entry| entry.loss), false),
            ("lr", floats(|entry| entry.lr), false),
            ("grad_norm", floats(|entry| entry.grad_norm), false),
            ("tokens", counts(|entry| entry.tokens), false),
            ("answer_tokens", counts(|entry| entry.answer_tokens), false),
            ("samples", counts(|entry| entry.samples), false),
            ("eval_loss", evals(|(loss, _)| loss), true),
            ("eval_token_accuracy", evals(|(_, accuracy)| accuracy), true),
        ];
        for (name, title) in names.iter().zip(&titles) {
            let values = self.0.iter().map(|entry| entry.benchmark(name));
            columns.push((title, Arc::new(Float64Array::from_iter(values)), true));
        }
        Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
    }

    /// Reads what [`Record::write`] wrote.
    pub fn read(path: &Path) -> Result<Self, StageError> {
        let file = File::open(path).map_err(|cause| StageError::io(path, cause))?;
        let failed = |cause| StageError::new(format!("{}: {cause}", path.display()));
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed)?.build();
        let mut record = Self::default();
        for batch in reader.map_err(failed)? {
            record.append(&batch?)?;
        }
        Ok(record)
    }

    fn append(&mut self, batch: &RecordBatch) -> Result<(), StageError> {
        let floats = |name: &str| column::<Float64Array>(batch, name);
        let counts = |name: &str| column::<UInt64Array>(batch, name);
        let (loss, lr, norm) = (floats("loss")?, floats("lr")?, floats("grad_norm")?);
        let (eval_loss, eval_accuracy) = (floats("eval_loss")?, floats("eval_token_accuracy")?);
        let (step, tokens) = (counts("step")?, counts("tokens")?);
        let (answer_tokens, samples) = (counts("answer_tokens")?, counts("samples")?);
        let mut asked: Vec<(String, &Float64Array)> = Vec::new();
        for field in batch.schema().fields() {
            if let Some(name) = field.name().strip_prefix(BENCHMARK) {
                asked.push((name.to_owned(), floats(field.name().as_str())?));
            }
        }
        let scores = |n: usize| {
            let there = asked.iter().filter(|(_, values)| values.is_valid(n));
            there.map(|(name, values)| (name.clone(), values.value(n))).collect()
        };
        self.0.extend((0..batch.num_rows()).map(|n| Entry {
            step: step.value(n),
            loss: loss.value(n),
            lr: lr.value(n),
            grad_norm: norm.value(n),
            tokens: tokens.value(n),
            answer_tokens: answer_tokens.value(n),
            samples: samples.value(n),
            eval: eval_loss.is_valid(n).then(|| (eval_loss.value(n), eval_accuracy.value(n))),
            benchmarks: scores(n),
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(evals: &[Option<f64>]) -> Record {
        let entry = |(step, eval): (u64, &Option<f64>)| Entry {
            step,
            loss: 0.1 + 0.2,
            lr: 1e-4 / step as f64,
            grad_norm: 0.5,
            tokens: 100,
            answer_tokens: 7,
            samples: 4,
            eval: eval.map(|loss| (loss, 1.0 / 3.0)),
            benchmarks: eval.map(|loss| ("pope".to_owned(), 1.0 / (3.0 + loss))).into_iter().collect(),
        };
        Record((1..).zip(evals).map(entry).collect())
    }

    #[test]
    fn what_is_written_reads_back_equal_to_the_last_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.parquet");
        let record = record(&[None, Some(1.0 / 7.0), None]);
        record.write(&path, 8).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
        let first = std::fs::read(&path).unwrap();
        record.write(&path, 8).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first);
    }

    #[test]
    fn the_best_measurement_is_the_first_with_the_lowest_loss() {
        let record = record(&[Some(3.0), Some(2.0), None, Some(2.0), Some(2.5)]);
        assert_eq!(record.best(), Some((2, 2.0)));
        assert_eq!(record.evals_since_best(), 2);
    }
}
