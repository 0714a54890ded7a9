//! Two or more evaluations side by side, with paired tests on the questions that all of them asked.
//!
//! In: the folders of `evaluate` stages. A question is the same where `id` and text of the question are. The first
//! evaluation is what the others are compared with: differences are theirs less its own. Intervals and p values come from
//! a paired bootstrap that draws images with all their questions, as `evaluate` does it; the sign test counts the images
//! about which one side answers more questions rightly than the other. The p values of all measures of all evaluations
//! are corrected for their number (Holm); only what a corrected one below [`LEVEL`] backs is called better or worse.

pub mod benchmarks;
pub mod html;

use super::prediction::{self, PREDICTIONS, Prediction, RIGHT, units};
use super::scores::{Scores, mean_of_some};
use crate::metrics::resample::{Resampler, holm, mean, sign_test};
use llavm_pipeline::StageError;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Replicates of the bootstrap: the least p value is 2 in as many, and has to bear the correction.
const REPLICATES: usize = 10_000;
/// Below this, a difference is significant.
pub const LEVEL: f64 = 0.05;
/// Questions listed that one side answers rightly and the other wrongly.
const MOST_CHANGES: usize = 200;

/// What a comparison found.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// In the order given; the first is what the others are compared with.
    pub runs: Vec<Run>,
    /// Questions that all of them asked.
    pub shared: usize,
    /// The second, third … against the first.
    pub against: Vec<Against>,
    /// Scores of benchmarks, where evaluations have any.
    pub benchmarks: Vec<benchmarks::Line>,
}

/// One evaluation.
#[derive(Debug, Serialize)]
pub struct Run {
    /// `A`, `B` …
    pub label: String,
    /// As given.
    pub name: String,
    /// Questions it asked.
    pub rows: usize,
}

/// One evaluation against the first.
#[derive(Debug, Serialize)]
pub struct Against {
    /// Its label.
    pub label: String,
    /// Measure by measure.
    pub measures: Vec<Measure>,
    /// Questions it answers rightly and the first does not.
    pub gained: usize,
    /// Questions the first answers rightly and it does not.
    pub lost: usize,
    /// The sign test on the images with more of the one than of the other.
    pub p: f64,
    /// Some of them: gained, then lost.
    pub changes: Vec<Change>,
}

/// One number of both.
#[derive(Debug, Serialize)]
pub struct Measure {
    /// As people call it.
    pub name: &'static str,
    /// Whether it is a share, shown as per cent.
    pub share: bool,
    /// Of the first and of the other.
    pub values: [f64; 2],
    /// Other less first.
    pub difference: f64,
    /// 95%.
    pub interval: Option<[f64; 2]>,
    /// Two-sided.
    pub p: Option<f64>,
    /// The same, corrected for the number of all tests in the comparison.
    pub corrected_p: Option<f64>,
    /// What the difference means, where it is significant.
    pub verdict: Verdict,
    /// +1 where more is better, -1 where less is, 0 where neither.
    #[serde(skip)]
    pub sign: f64,
}

/// What a difference means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The other is better than the first.
    Better,
    /// Worse.
    Worse,
    /// Not significant.
    Same,
}

/// A question that one side answers rightly and the other wrongly.
#[derive(Debug, Serialize)]
pub struct Change {
    /// Whether the other is the one that is right.
    pub gained: bool,
    /// The source row.
    pub id: String,
    /// What was asked.
    pub question: String,
    /// What is right.
    pub reference: String,
    /// What the first and the other say.
    pub answers: [String; 2],
}

/// Compares the evaluations in `paths`: folders, or files in them such as `report.json`.
pub fn compare(paths: &[PathBuf]) -> Result<Comparison, StageError> {
    let mut sets = Vec::new();
    let mut ruled = Vec::new();
    for path in paths {
        let (set, slices) = prediction::read(&predictions_of(path)?)?;
        ruled.push(slices.iter().position(|name| name == RIGHT));
        sets.push(set);
    }
    let runs = paths.iter().zip(&sets).zip('A'..).map(|((path, set), label)| Run {
        label: label.to_string(),
        name: path.display().to_string(),
        rows: set.len(),
    });
    let runs: Vec<Run> = runs.collect();
    let shared = shared(sets)?;
    let mut scores: Vec<Scores> = shared.iter().map(|set| Scores::of(set)).collect();
    // Answers to a benchmark are right by its rule, not word by word, where all sides say so.
    let by_rule: Option<Vec<usize>> = ruled.into_iter().collect();
    for ((scores, set), column) in scores.iter_mut().zip(&shared).zip(by_rule.iter().flatten()) {
        let right = |row: &Prediction| row.slices.get(*column).and_then(Option::as_deref) == Some("1");
        scores.exact = set.iter().map(|row| f64::from(right(row))).collect();
    }
    let units = units(&shared[0]);
    let resampler = Resampler::new(units.clone(), REPLICATES, 0);
    let others = runs.iter().zip(&shared).zip(&scores).skip(1);
    let against = others.map(|((run, set), other)| {
        let measures = kinds(by_rule.is_some());
        let measures = measures.iter().filter_map(|kind| Measure::of(kind, &scores[0], other, &resampler));
        Against::of(run, (&shared[0], set), (&scores[0], other), &units, measures.collect())
    });
    let mut against: Vec<Against> = against.collect();
    correct(&mut against);
    let benchmarks = benchmarks::of(paths)?;
    Ok(Comparison { shared: shared[0].len(), runs, against, benchmarks })
}

/// The measures; of answers that a benchmark's rule has judged, right answers stand where an exact match stands of others.
fn kinds(by_rule: bool) -> Vec<Kind> {
    let named = |kind: Kind| match kind.name {
        "exact match" if by_rule => Kind { name: "right by the benchmark's rule", ..kind },
        _ => kind,
    };
    KINDS.into_iter().map(named).collect()
}

/// The predictions behind a path: a folder that has them, a file beside them, or the one folder below that has them.
fn predictions_of(path: &Path) -> Result<PathBuf, StageError> {
    let folder = if path.is_file() { path.parent().unwrap_or(path) } else { path };
    if folder.join(PREDICTIONS).is_file() {
        return Ok(folder.join(PREDICTIONS));
    }
    let below = std::fs::read_dir(folder).map_err(|cause| StageError::io(folder, cause))?;
    let below = below.filter_map(Result::ok).map(|entry| entry.path().join(PREDICTIONS));
    let mut below: Vec<PathBuf> = below.filter(|file| file.is_file()).collect();
    below.sort();
    match below.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(StageError::new(format!("{}: there is no {PREDICTIONS}", path.display()))
            .help("Give the folder that an `evaluate` stage wrote; `llavm status --json` names it.")),
        several => {
            let names: Vec<String> = several.iter().map(|file| file.display().to_string()).collect();
            Err(StageError::new(format!(
                "{}: there are {} evaluations below it",
                path.display(),
                several.len()
            ))
            .help(format!("Give one of them: {}.", names.join(", "))))
        }
    }
}

/// The predictions of the questions that are in every set, in the order of the first.
fn shared(sets: Vec<Vec<Prediction>>) -> Result<Vec<Vec<Prediction>>, StageError> {
    type Key = (String, String);
    let key = |row: &Prediction| -> Key { (row.id.clone(), row.question.clone()) };
    let Some(order) = sets.first().map(|set| set.iter().map(key).collect::<Vec<Key>>()) else {
        return Err(StageError::new("there is nothing to compare"));
    };
    let mut tables: Vec<BTreeMap<Key, Prediction>> =
        sets.into_iter().map(|set| set.into_iter().map(|row| (key(&row), row)).collect()).collect();
    let in_all = |key: &&Key| tables.iter().all(|table| table.contains_key(*key));
    let mut order: Vec<Key> = order.iter().filter(in_all).cloned().collect();
    // A question that a row asks twice counts once.
    let mut seen = std::collections::BTreeSet::new();
    order.retain(|key| seen.insert(key.clone()));
    if order.is_empty() {
        return Err(StageError::new("the evaluations share no question")
            .help("Evaluate the same rows: the same data, `seed`, `validation` and `turns`."));
    }
    let take =
        |table: &mut BTreeMap<Key, Prediction>| order.iter().filter_map(|key| table.remove(key)).collect();
    Ok(tables.iter_mut().map(take).collect())
}

/// Corrects the p values of all measures together, and says what is better and worse.
fn correct(against: &mut [Against]) {
    let measures = || against.iter().flat_map(|other| &other.measures);
    let corrected = holm(&measures().filter_map(|measure| measure.p).collect::<Vec<f64>>());
    let tested =
        against.iter_mut().flat_map(|other| &mut other.measures).filter(|measure| measure.p.is_some());
    for (measure, p) in tested.zip(corrected) {
        measure.corrected_p = Some(p);
        measure.verdict = verdict(measure.sign * measure.difference, p);
    }
}

/// A number of a set of scores, as a function of row weights.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    share: bool,
    /// +1 where more is better, -1 where less is, 0 where neither.
    sign: f64,
    of: fn(&Scores, &[f64]) -> f64,
}

const KINDS: [Kind; 10] = [
    Kind { name: "loss", share: false, sign: -1.0, of: Scores::mean_loss },
    Kind { name: "token accuracy", share: true, sign: 1.0, of: Scores::token_accuracy },
    Kind { name: "exact match", share: true, sign: 1.0, of: Scores::exact_match },
    Kind { name: "BLEU-4", share: false, sign: 1.0, of: |scores, w| scores.bleu(w)[3] },
    Kind { name: "ROUGE-L", share: false, sign: 1.0, of: |scores, w| mean(&scores.rouge_l, w) },
    Kind { name: "CIDEr-D", share: false, sign: 1.0, of: |scores, w| mean(&scores.cider_d, w) },
    Kind { name: "yes/no accuracy", share: true, sign: 1.0, of: |scores, w| scores.yes_no(w).accuracy() },
    Kind {
        name: "exact match, images swapped",
        share: true,
        sign: 0.0,
        of: |scores, w| mean_of_some(scores.image_swap.iter().map(|swap| swap.map(|(_, exact)| exact)), w),
    },
    Kind {
        name: "answer changes with question",
        share: true,
        sign: 1.0,
        of: |scores, w| {
            mean_of_some(scores.question_swap.iter().map(|swap| swap.and_then(|swap| swap.changed)), w)
        },
    },
    Kind {
        name: "right for other question",
        share: true,
        sign: 1.0,
        of: |scores, w| {
            mean_of_some(scores.question_swap.iter().map(|swap| swap.and_then(|swap| swap.exact)), w)
        },
    },
];

impl Against {
    fn of(
        run: &Run,
        sets: (&[Prediction], &[Prediction]),
        scores: (&Scores, &Scores),
        units: &[usize],
        measures: Vec<Measure>,
    ) -> Self {
        let (first, other) = scores;
        let right = |at: &usize| (first.exact[*at] > 0.0, other.exact[*at] > 0.0);
        let rows = 0..first.rows();
        let gained: Vec<usize> = rows.clone().filter(|at| right(at) == (false, true)).collect();
        let lost: Vec<usize> = rows.filter(|at| right(at) == (true, false)).collect();
        let change = |gained: bool, at: usize| Change {
            gained,
            id: sets.0[at].id.clone(),
            question: sets.0[at].question.clone(),
            reference: sets.0[at].reference.clone(),
            answers: [sets.0[at].answer.clone(), sets.1[at].answer.clone()],
        };
        let listed = |rows: &[usize], gained| -> Vec<Change> {
            rows.iter().take(MOST_CHANGES).map(|at| change(gained, *at)).collect()
        };
        Self {
            label: run.label.clone(),
            measures,
            p: sign_test_of_units(&gained, &lost, units),
            changes: listed(&gained, true).into_iter().chain(listed(&lost, false)).collect(),
            gained: gained.len(),
            lost: lost.len(),
        }
    }
}

impl Measure {
    /// `None` where a side has no such number.
    fn of(kind: &Kind, first: &Scores, other: &Scores, test: &Resampler) -> Option<Self> {
        let once = test.once();
        let values = [(kind.of)(first, &once), (kind.of)(other, &once)];
        if values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let found = test.difference(|w| (kind.of)(first, w), |w| (kind.of)(other, w));
        Some(Self {
            name: kind.name,
            share: kind.share,
            values,
            difference: values[1] - values[0],
            interval: found.map(|found| found.interval),
            p: found.map(|found| found.p),
            corrected_p: None,
            verdict: Verdict::Same,
            sign: kind.sign,
        })
    }
}

fn verdict(gain: f64, corrected_p: f64) -> Verdict {
    match gain {
        _ if corrected_p >= LEVEL => Verdict::Same,
        gain if gain > 0.0 => Verdict::Better,
        gain if gain < 0.0 => Verdict::Worse,
        _ => Verdict::Same,
    }
}

/// The sign test on units, so that ten questions about one image are no ten witnesses.
fn sign_test_of_units(gained: &[usize], lost: &[usize], units: &[usize]) -> f64 {
    let mut balance: BTreeMap<usize, i64> = BTreeMap::new();
    gained.iter().for_each(|at| *balance.entry(units[*at]).or_default() += 1);
    lost.iter().for_each(|at| *balance.entry(units[*at]).or_default() -= 1);
    let count = |sign: i64| balance.values().filter(|balance| balance.signum() == sign).count();
    sign_test(count(1), count(-1))
}

#[cfg(test)]
mod tests {
    use super::super::scores::Scores;
    use super::*;

    fn rows(answers: impl Fn(usize) -> &'static str) -> Vec<Prediction> {
        let row = |n: usize| Prediction {
            id: format!("row-{n}"),
            question: "What colour?".to_owned(),
            reference: "red".to_owned(),
            answer: answers(n).to_owned(),
            loss: if answers(n) == "red" { 0.1 } else { 1.0 },
            answer_tokens: 1,
            correct_tokens: 1,
            ..Prediction::default()
        };
        (0..60).map(row).collect()
    }

    fn stored(folder: &Path, name: &str, rows: &[Prediction]) -> PathBuf {
        let path = folder.join(name);
        std::fs::create_dir(&path).unwrap();
        prediction::write(&path.join(PREDICTIONS), rows, &Scores::of(rows), &[]).unwrap();
        path
    }

    #[test]
    fn a_better_run_is_called_so_and_an_equal_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let worse = rows(|n| if n % 3 == 0 { "red" } else { "blue" });
        let mut better = rows(|n| if n % 6 == 1 { "blue" } else { "red" });
        better.truncate(50);
        let paths = [
            stored(folder.path(), "a", &worse),
            stored(folder.path(), "b", &better),
            stored(folder.path(), "c", &worse),
        ];
        let found = compare(&paths).unwrap();
        assert_eq!((found.shared, found.runs[0].rows, found.runs[1].rows), (50, 60, 50));
        let verdicts =
            |n: usize| found.against[n].measures.iter().map(|m| (m.name, m.verdict)).collect::<Vec<_>>();
        assert!(verdicts(0).contains(&("exact match", Verdict::Better)));
        assert!(verdicts(0).contains(&("loss", Verdict::Better)));
        assert!(verdicts(1).iter().all(|(_, verdict)| *verdict == Verdict::Same));
        assert_eq!((found.against[0].gained, found.against[0].lost), (24, 0));
        assert_eq!((found.against[1].gained, found.against[1].p), (0, 1.0));
        assert!(found.against[0].p < 1e-6 && found.against[0].changes.len() == 24);
        let page = html::render(&found).unwrap();
        for text in ["B against A", "+48.0", "-0.432", "<td class=\"n\">&lt;0.001</td>", "better"] {
            assert!(page.contains(text), "{text}");
        }
    }

    #[test]
    fn questions_about_one_image_are_one_witness() {
        let folder = tempfile::tempdir().unwrap();
        // Ten rows about each of six images: right or wrong as one.
        let about = |answers: fn(usize) -> &'static str| {
            let mut rows = rows(answers);
            (0..).zip(&mut rows).for_each(|(n, row)| row.image = Some(format!("image-{}", n / 10)));
            rows
        };
        let first = about(|n| if n / 10 < 2 { "red" } else { "blue" });
        let second = about(|n| if n / 10 < 5 { "red" } else { "blue" });
        let compared = |a: &[Prediction], b: &[Prediction], name: &str| {
            let paths = [
                stored(folder.path(), &format!("{name}-a"), a),
                stored(folder.path(), &format!("{name}-b"), b),
            ];
            compare(&paths).unwrap().against.remove(0)
        };
        let clustered = compared(&first, &second, "images");
        assert_eq!((clustered.gained, clustered.lost), (30, 0));
        assert!((clustered.p - 0.25).abs() < 1e-9, "three images against none: {}", clustered.p);
        let strip = |rows: &[Prediction]| -> Vec<Prediction> {
            rows.iter().map(|row| Prediction { image: None, ..row.clone() }).collect()
        };
        let alone = compared(&strip(&first), &strip(&second), "rows");
        let width = |against: &Against| {
            let exact = against.measures.iter().find(|measure| measure.name == "exact match").unwrap();
            exact.interval.map(|[lo, hi]| hi - lo).unwrap()
        };
        assert!(width(&clustered) > 2.0 * width(&alone), "{} {}", width(&clustered), width(&alone));
    }

    #[test]
    fn a_difference_that_one_test_of_many_finds_is_not_called_one() {
        let measure = |p: f64| Measure {
            name: "loss",
            share: false,
            values: [1.0, 0.9],
            difference: -0.1,
            interval: None,
            p: Some(p),
            corrected_p: None,
            verdict: Verdict::Same,
            sign: -1.0,
        };
        let mut against = [Against {
            label: "B".to_owned(),
            measures: [0.03, 0.6, 0.004, 0.9].map(measure).into(),
            gained: 0,
            lost: 0,
            p: 1.0,
            changes: Vec::new(),
        }];
        correct(&mut against);
        let verdicts: Vec<Verdict> = against[0].measures.iter().map(|measure| measure.verdict).collect();
        assert_eq!(verdicts, [Verdict::Same, Verdict::Same, Verdict::Better, Verdict::Same]);
        assert_eq!(against[0].measures[2].corrected_p, Some(0.016));
    }

    #[test]
    fn evaluations_of_other_rows_have_nothing_to_compare() {
        let folder = tempfile::tempdir().unwrap();
        let mut others = rows(|_| "red");
        others.iter_mut().for_each(|row| row.id += "-other");
        let paths = [stored(folder.path(), "a", &rows(|_| "red")), stored(folder.path(), "b", &others)];
        let error = compare(&paths).unwrap_err();
        assert_eq!(error.to_string(), "the evaluations share no question");
    }

    #[test]
    fn what_is_written_reads_back_equal() {
        let folder = tempfile::tempdir().unwrap();
        let mut rows = rows(|_| "red");
        rows[2].image = Some("0abc".to_owned());
        rows[1].slices = vec![Some("en".to_owned())];
        rows.iter_mut().for_each(|row| row.slices.resize(1, None));
        let path = folder.path().join(PREDICTIONS);
        prediction::write(&path, &rows, &Scores::of(&rows), &["language".to_owned()]).unwrap();
        assert_eq!(prediction::read(&path).unwrap(), (rows, vec!["language".to_owned()]));
    }
}
