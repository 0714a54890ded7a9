//! The scores of benchmarks side by side, each run with its own intervals: what the `report.json` of `benchmark` stages and of
//! `llavm score --out` say.

use llavm_pipeline::StageError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The numbers' file of an evaluation.
const REPORT: &str = "report.json";

/// One number of a rule, run by run.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The benchmark's name.
    pub benchmark: String,
    /// Whose rule it is.
    pub rule: String,
    /// As the rule calls it.
    pub number: String,
    /// In the order of the runs; `None` where a run has no such number.
    pub values: Vec<Option<Value>>,
}

/// A score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Value {
    /// In the rule's unit.
    pub value: f64,
    /// 95%, drawn over images.
    pub ci: Option<[f64; 2]>,
}

/// What is needed of a `report.json`.
#[derive(Deserialize)]
struct Report {
    #[serde(default)]
    scores: Vec<Score>,
}

#[derive(Deserialize)]
struct Score {
    benchmark: String,
    rule: String,
    numbers: Vec<Number>,
}

#[derive(Deserialize)]
struct Number {
    name: String,
    value: Option<f64>,
    ci: Option<[f64; 2]>,
}

/// The lines of some evaluations: every number that any of them has, in the order of the first that has it.
pub fn of(paths: &[PathBuf]) -> Result<Vec<Line>, StageError> {
    type Key = (String, String, String);
    let mut order: Vec<Key> = Vec::new();
    let mut values: BTreeMap<Key, Vec<Option<Value>>> = BTreeMap::new();
    for (run, path) in paths.iter().enumerate() {
        for score in scores(path)? {
            for Number { name, value, ci } in score.numbers {
                let key = (score.benchmark.clone(), score.rule.clone(), name);
                let line = values.entry(key.clone()).or_insert_with(|| {
                    order.push(key);
                    vec![None; paths.len()]
                });
                line[run] = value.map(|value| Value { value, ci });
            }
        }
    }
    let line = |key: Key| {
        let values = values.remove(&key).unwrap_or_default();
        let (benchmark, rule, number) = key;
        Line { benchmark, rule, number, values }
    };
    Ok(order.into_iter().map(line).collect())
}

/// The scores in an evaluation's `report.json`; none where there is no such file, or where it has none.
fn scores(path: &Path) -> Result<Vec<Score>, StageError> {
    let folder = if path.is_file() { path.parent().unwrap_or(path) } else { path };
    let file = folder.join(REPORT);
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(StageError::io(&file, cause)),
    };
    let report: Report = serde_json::from_slice(&text)
        .map_err(|error| StageError::new(format!("{}: {error}", file.display())))?;
    Ok(report.scores)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_of_several_runs_stand_in_one_line_each() {
        let folder = tempfile::tempdir().unwrap();
        let score = |value: f64| json!({"benchmark": "pope", "rule": "pope", "numbers": [{"name": "accuracy", "value": value, "ci": [0.1, 0.9]}]});
        let runs = [json!({"scores": [score(0.5)]}), json!({"rows": 3}), json!({"scores": [score(0.75)]})];
        let paths: Vec<PathBuf> = runs
            .iter()
            .enumerate()
            .map(|(n, report)| {
                let path = folder.path().join(n.to_string());
                std::fs::create_dir(&path).unwrap();
                std::fs::write(path.join(REPORT), report.to_string()).unwrap();
                path
            })
            .collect();
        let lines = of(&paths).unwrap();
        let values: Vec<Option<f64>> =
            lines[0].values.iter().map(|value| value.map(|value| value.value)).collect();
        assert_eq!((lines.len(), values), (1, vec![Some(0.5), None, Some(0.75)]));
        assert!(of(&[folder.path().to_owned()]).unwrap().is_empty());
    }
}
