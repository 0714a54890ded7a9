//! `report.json`: every measure over all predictions and over slices of them, each with its 95% interval beside it.
//!
//! A number called `x` has `x_ci: [lo, hi]` beside it, drawn over images (see `metrics/resample.rs`). Losses are nats per
//! answer token over all tokens together, not a mean of means; perplexity is their exponential.

use super::prediction::Prediction;
use super::scores::{Scores, captions, mean_of_some};
use crate::metrics::bleu::BleuCounts;
use crate::metrics::cider::cider_d;
use crate::metrics::resample::{Resampler, mean};
use crate::metrics::rouge::rouge_l;
use crate::metrics::words::Tokenisation;
use crate::metrics::yes_no::{Judged, YesNo};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Most values of a column that are reported; the commonest.
const MOST_VALUES: usize = 40;

/// A family of measures, as `metrics` of `evaluate` names it. Loss and token accuracy are always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// `exact_match`.
    ExactMatch,
    /// `bleu_1` to `bleu_4`.
    Bleu,
    /// `rouge_l`.
    RougeL,
    /// `cider_d`.
    CiderD,
    /// `yes_no`: accuracy, precision, recall, F1, yes-ratio.
    YesNo,
    /// `pope`: the same, answers read by POPE's own rule. Not among the default measures.
    Pope,
}

impl Metric {
    /// Those that are reported unless `metrics` says otherwise.
    pub const DEFAULT: [Self; 5] = [Self::ExactMatch, Self::Bleu, Self::RougeL, Self::CiderD, Self::YesNo];
}

/// What the numbers are made of.
#[derive(Debug)]
pub struct Numbers<'a> {
    /// The rows.
    pub predictions: &'a [Prediction],
    /// Their scores.
    pub scores: &'a Scores,
    /// Names of [`Prediction::slices`].
    pub slices: &'a [String],
    /// Which measures to report.
    pub metrics: &'a [Metric],
    /// Where intervals come from.
    pub resampler: &'a Resampler,
}

/// Numbers by name, each with its interval.
struct Table<'a> {
    resampler: &'a Resampler,
    fields: Map<String, Value>,
}

impl Table<'_> {
    fn put(&mut self, name: &str, statistic: impl Fn(&[f64]) -> f64) {
        let value = statistic(&self.resampler.once());
        self.fields.insert(name.to_owned(), json!(value.is_finite().then_some(value)));
        let interval = self.resampler.interval(statistic).filter(|_| value.is_finite());
        self.fields.insert(format!("{name}_ci"), json!(interval));
    }
}

impl Numbers<'_> {
    /// The fields of `report.json` that are numbers.
    pub fn fields(&self) -> Map<String, Value> {
        let scores = self.scores;
        let mut table = self.table();
        table.fields.insert("rows".to_owned(), json!(scores.rows()));
        table.fields.insert("answer_tokens".to_owned(), json!(scores.tokens.iter().sum::<f64>() as u64));
        table.put("loss", |w| scores.mean_loss(w));
        table.put("perplexity", |w| scores.mean_loss(w).exp());
        table.put("token_accuracy", |w| scores.token_accuracy(w));
        if self.wants(Metric::ExactMatch) {
            table.put("exact_match", |w| scores.exact_match(w));
        }
        if self.wants(Metric::RougeL) {
            table.put("rouge_l", |w| mean(&scores.rouge_l, w));
        }
        if self.wants(Metric::CiderD) {
            table.put("cider_d", |w| mean(&scores.cider_d, w));
        }
        for n in (0..4).filter(|_| self.wants(Metric::Bleu)) {
            table.put(&format!("bleu_{}", n + 1), |w| scores.bleu(w)[n]);
        }
        let mut fields = table.fields;
        fields.insert("by_tokenisation".to_owned(), self.by_tokenisation());
        if self.wants(Metric::YesNo) {
            fields.insert("yes_no".to_owned(), self.yes_no(&scores.yes_no, |w| scores.yes_no(w)));
        }
        if self.wants(Metric::Pope) {
            fields.insert("pope".to_owned(), self.yes_no(&scores.pope, |w| scores.pope(w)));
        }
        fields.insert("image_swap".to_owned(), self.image_swap());
        fields.insert("question_swap".to_owned(), self.question_swap());
        fields.insert("slices".to_owned(), self.slices());
        fields
    }

    fn wants(&self, metric: Metric) -> bool {
        self.metrics.contains(&metric)
    }

    fn table(&self) -> Table<'_> {
        Table { resampler: self.resampler, fields: Map::new() }
    }

    /// The caption measures of the rows that are split into words in the same way, and Chinese by character.
    fn by_tokenisation(&self) -> Value {
        let rows = |how| {
            let rows = self.scores.tokenisation.iter().enumerate();
            rows.filter(move |(_, used)| **used == how).map(|(row, _)| row).collect::<Vec<usize>>()
        };
        let mut fields = Map::new();
        for (how, as_split) in [
            (Tokenisation::Ptb, Tokenisation::Ptb),
            (Tokenisation::Jieba, Tokenisation::Jieba),
            (Tokenisation::Characters, Tokenisation::Jieba),
        ] {
            let rows = rows(as_split);
            if !rows.is_empty() {
                fields.insert(how.name().to_owned(), self.words(&rows, how));
            }
        }
        Value::Object(fields)
    }

    /// The caption measures of `rows` as a corpus of their own.
    fn words(&self, rows: &[usize], how: Tokenisation) -> Value {
        let predictions: Vec<Prediction> = rows.iter().map(|row| self.predictions[*row].clone()).collect();
        let captions = captions(&predictions, &vec![how; rows.len()]);
        let mut corpus = BleuCounts::default();
        captions.iter().for_each(|caption| corpus.add(&BleuCounts::of(caption), 1.0));
        let once = vec![1.0; rows.len()];
        let rouge: Vec<f64> = captions.iter().map(rouge_l).collect();
        let [bleu_1, bleu_2, bleu_3, bleu_4] = corpus.score();
        json!({
            "rows": rows.len(), "bleu_1": bleu_1, "bleu_2": bleu_2, "bleu_3": bleu_3, "bleu_4": bleu_4,
            "rouge_l": mean(&rouge, &once), "cider_d": mean(&cider_d(&captions), &once),
        })
    }

    fn yes_no(&self, judged: &[Option<Judged>], of: impl Fn(&[f64]) -> YesNo) -> Value {
        let rows = judged.iter().flatten().count();
        if rows == 0 {
            return json!({"rows": 0});
        }
        let mut table = self.table();
        table.fields.insert("rows".to_owned(), json!(rows));
        table.put("accuracy", |w| of(w).accuracy());
        table.put("precision", |w| of(w).precision());
        table.put("recall", |w| of(w).recall());
        table.put("f1", |w| of(w).f1());
        table.put("yes_ratio", |w| of(w).yes_ratio());
        let counts = of(&self.resampler.once());
        table.fields.insert("true_positive".to_owned(), json!(counts.true_positive as u64));
        table.fields.insert("false_positive".to_owned(), json!(counts.false_positive as u64));
        table.fields.insert("true_negative".to_owned(), json!(counts.true_negative as u64));
        table.fields.insert("false_negative".to_owned(), json!(counts.false_negative as u64));
        table.fields.insert("unclear".to_owned(), json!(counts.unclear() as u64));
        Value::Object(table.fields)
    }

    /// Does it look? What the right image is worth, on the rows that were swapped.
    fn image_swap(&self) -> Value {
        let scores = self.scores;
        let swapped: Vec<usize> =
            (0..scores.rows()).filter(|row| scores.image_swap[*row].is_some()).collect();
        let loss = |row: usize| scores.image_swap[row].map_or(0.0, |(loss, _)| loss);
        let tokens = |w: &[f64]| swapped.iter().map(|row| w[*row] * scores.tokens[*row]).sum::<f64>();
        let sum =
            |w: &[f64], of: &dyn Fn(usize) -> f64| swapped.iter().map(|row| w[*row] * of(*row)).sum::<f64>();
        let exact =
            |w: &[f64]| mean_of_some(scores.image_swap.iter().map(|swap| swap.map(|(_, exact)| exact)), w);
        let rows = |w: &[f64]| sum(w, &|_| 1.0);
        let mut table = self.table();
        table.fields.insert("rows".to_owned(), json!(swapped.len()));
        table.put("loss", |w| sum(w, &loss) / tokens(w));
        table.put("loss_increase", |w| sum(w, &|row| loss(row) - scores.loss[row]) / tokens(w));
        table.put("exact_match", exact);
        table.put("exact_match_drop", |w| sum(w, &|row| scores.exact[row]) / rows(w) - exact(w));
        Value::Object(table.fields)
    }

    /// Does it listen? What becomes of the answer when something else is asked.
    fn question_swap(&self) -> Value {
        let pairs = || self.scores.question_swap.iter();
        let mut table = self.table();
        let borrowed = self.predictions.iter().filter_map(|row| row.question_swap.as_ref());
        let borrowed = borrowed.filter(|swap| swap.reference.is_none()).count();
        let differing = pairs().flatten().filter(|pair| pair.changed.is_some()).count();
        table.fields.insert("rows".to_owned(), json!(pairs().flatten().count()));
        table.fields.insert("differing".to_owned(), json!(differing));
        table.fields.insert("borrowed".to_owned(), json!(borrowed));
        table.put("changed", |w| mean_of_some(pairs().map(|pair| pair.and_then(|pair| pair.changed)), w));
        table.put("exact_match", |w| mean_of_some(pairs().map(|pair| pair.and_then(|pair| pair.exact)), w));
        Value::Object(table.fields)
    }

    fn slices(&self) -> Value {
        let column = |(n, name): (usize, &String)| (name.clone(), self.slice_column(n));
        Value::Object(self.slices.iter().enumerate().map(column).collect())
    }

    /// The commonest values of slice column `n`, by name.
    fn slice_column(&self, n: usize) -> Value {
        let mut values: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (row, prediction) in self.predictions.iter().enumerate() {
            if let Some(value) = prediction.slices.get(n).and_then(Option::as_deref) {
                values.entry(value).or_default().push(row);
            }
        }
        let mut values: Vec<(&str, Vec<usize>)> = values.into_iter().collect();
        values.sort_by_key(|(_, rows)| std::cmp::Reverse(rows.len()));
        values.truncate(MOST_VALUES);
        Value::Object(values.into_iter().map(|(value, rows)| (value.to_owned(), self.slice(&rows))).collect())
    }

    fn slice(&self, rows: &[usize]) -> Value {
        let scores = self.scores;
        let sum = |w: &[f64], values: &[f64]| rows.iter().map(|row| w[*row] * values[*row]).sum::<f64>();
        let weight = |w: &[f64]| rows.iter().map(|row| w[*row]).sum::<f64>();
        let mut table = self.table();
        table.fields.insert("rows".to_owned(), json!(rows.len()));
        table.put("loss", |w| sum(w, &scores.loss) / sum(w, &scores.tokens));
        table.put("token_accuracy", |w| sum(w, &scores.correct) / sum(w, &scores.tokens));
        table.put("exact_match", |w| sum(w, &scores.exact) / weight(w));
        table.put("rouge_l", |w| sum(w, &scores.rouge_l) / weight(w));
        Value::Object(table.fields)
    }
}
