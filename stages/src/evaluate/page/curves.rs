//! Loss and learning rate of every training stage, from `metrics.parquet`, as the lines of small charts.
//!
//! In: a model folder; `history/<NN-stage>/` holds the stages it went on from.

use crate::evaluate::session::read_json;
use crate::train::record::{Entry, Record};
use llavm_pipeline::StageError;
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The drawing's box, in SVG units: 600 × 200, room for numbers at the left and below.
const LEFT: f64 = 48.0;
const RIGHT: f64 = 592.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 175.0;
/// Most points of a line; more are averaged in runs.
const POINTS: usize = 400;
/// A point of a smoothed line is the mean of its neighbours: on either side the line's points over this.
const SMOOTHING: usize = 40;

/// One training stage.
#[derive(Debug, Serialize)]
pub struct Curve {
    /// Its name.
    pub stage: String,
    /// Optimiser steps.
    pub steps: u64,
    /// What was trained, in few words.
    pub summary: String,
    /// Loss at the end, smoothed.
    pub last: f64,
    /// Loss in training, and on held-out rows.
    pub loss: Chart,
    /// Learning rate.
    pub rate: Chart,
    /// Scores of the benchmarks that were asked between steps.
    pub benchmarks: Vec<Asked>,
}

/// A benchmark that was asked between steps.
#[derive(Debug, Serialize)]
pub struct Asked {
    name: String,
    last: f64,
    chart: Chart,
}

/// Lines and dots over steps.
#[derive(Debug, Default, Serialize)]
pub struct Chart {
    label: String,
    y_ticks: Vec<Tick>,
    x_ticks: Vec<Tick>,
    paths: Vec<Line>,
    dots: Vec<Dot>,
}

#[derive(Debug, Serialize)]
struct Tick {
    at: f64,
    text: String,
}

#[derive(Debug, Serialize)]
struct Line {
    class: &'static str,
    d: String,
}

#[derive(Debug, Serialize)]
struct Dot {
    x: f64,
    y: f64,
    step: f64,
    value: f64,
}

/// A training stage's folder: its name and where its files are.
#[derive(Debug)]
pub struct Stage {
    /// Of the stage.
    pub name: String,
    /// `training.json`, or null.
    pub settings: Value,
    folder: PathBuf,
}

/// The stages that made a model, the oldest first.
pub fn stages(model: &Path, name: &str) -> Result<Vec<Stage>, StageError> {
    let history = model.join("history");
    let mut folders = Vec::new();
    if history.is_dir() {
        for entry in std::fs::read_dir(&history).map_err(|cause| StageError::io(&history, cause))? {
            folders.push(entry.map_err(|cause| StageError::io(&history, cause))?.path());
        }
    }
    folders.sort();
    let name_of = |folder: &PathBuf| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bare = name.split_once('-').filter(|(number, _)| number.chars().all(|c| c.is_ascii_digit()));
        bare.map_or(name.clone(), |(_, bare)| bare.to_owned())
    };
    let mut stages: Vec<(String, PathBuf)> =
        folders.into_iter().map(|folder| (name_of(&folder), folder)).collect();
    stages.push((name.to_owned(), model.to_owned()));
    let stage = |(name, folder): (String, PathBuf)| {
        let file = folder.join("training.json");
        let settings = if file.is_file() { read_json(&file)? } else { Value::Null };
        Ok(Stage { name, settings, folder })
    };
    stages.into_iter().map(stage).collect()
}

/// The curves of the stages that kept any.
pub fn curves(stages: &[Stage]) -> Result<Vec<Curve>, StageError> {
    let curves = stages.iter().map(|stage| curve(stage).transpose());
    curves.flatten().collect()
}

fn curve(stage: &Stage) -> Result<Option<Curve>, StageError> {
    let file = stage.folder.join("metrics.parquet");
    if !file.is_file() {
        return Ok(None);
    }
    let trained =
        stage.settings["arguments"]["trainable"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Ok(Some(Curve::of(&stage.name, trained.collect::<Vec<_>>().join(", "), &Record::read(&file)?)))
}

impl Curve {
    fn of(stage: &str, summary: String, record: &Record) -> Self {
        let points = |value: fn(&Entry) -> Option<f64>| -> Vec<(f64, f64)> {
            let points = record.0.iter().filter_map(|entry| Some((entry.step as f64, value(entry)?)));
            points.filter(|(_, value)| value.is_finite()).collect()
        };
        let loss = thinned(&points(|entry| Some(entry.loss)));
        let rate = thinned(&points(|entry| Some(entry.lr)));
        let held_out = points(|entry| entry.eval.map(|(loss, _)| loss));
        let smooth = smoothed(&loss);
        let lines: [(&str, &[(f64, f64)]); 2] = [("raw", &loss), ("train", &smooth)];
        Self {
            stage: stage.to_owned(),
            steps: record.0.last().map_or(0, |entry| entry.step),
            summary,
            last: smooth.last().map_or(f64::NAN, |(_, loss)| *loss),
            loss: Chart::new(format!("loss of {stage} over steps"), &lines, &held_out),
            rate: Chart::new(format!("learning rate of {stage}"), &[("rate", &rate)], &[]),
            benchmarks: record
                .benchmarks()
                .into_iter()
                .filter_map(|name| asked(stage, name, record))
                .collect(),
        }
    }
}

/// The scores of a benchmark, each a dot.
fn asked(stage: &str, name: String, record: &Record) -> Option<Asked> {
    let scores = record.0.iter().filter_map(|entry| Some((entry.step as f64, entry.benchmark(&name)?)));
    let scores: Vec<(f64, f64)> = scores.filter(|(_, score)| score.is_finite()).collect();
    let last = scores.last()?.1;
    Some(Asked {
        chart: Chart::new(format!("{name} while {stage}"), &[("train", &scores)], &scores),
        name,
        last,
    })
}

/// At most [`POINTS`] points: runs of them are averaged.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let run = points.len().div_ceil(POINTS).max(1);
    let mean = |points: &[(f64, f64)]| {
        let n = points.len() as f64;
        (points.iter().map(|(x, _)| x).sum::<f64>() / n, points.iter().map(|(_, y)| y).sum::<f64>() / n)
    };
    points.chunks(run).map(mean).collect()
}

/// A moving average that looks as far ahead as back, so that the line does not lag behind.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len() / SMOOTHING;
    let mean = |at: usize| {
        let near = &points[at.saturating_sub(reach)..points.len().min(at + reach + 1)];
        near.iter().map(|(_, y)| y).sum::<f64>() / near.len() as f64
    };
    points.iter().enumerate().map(|(at, (x, _))| (*x, mean(at))).collect()
}

impl Chart {
    fn new(label: String, lines: &[(&'static str, &[(f64, f64)])], dots: &[(f64, f64)]) -> Self {
        let points = || lines.iter().flat_map(|(_, points)| points.iter()).chain(dots);
        let largest = |value: fn(&(f64, f64)) -> f64| points().map(value).fold(0.0, f64::max);
        let (steps, top) = (largest(|point| point.0).max(1.0), ceiling(largest(|point| point.1)));
        let x = |step: f64| round(LEFT + (RIGHT - LEFT) * step / steps);
        let y = |value: f64| round(BOTTOM - (BOTTOM - TOP) * value / top);
        let path = |points: &[(f64, f64)]| {
            points.iter().enumerate().fold(String::new(), |mut d, (n, (step, value))| {
                let _ = write!(d, "{}{} {}", if n == 0 { 'M' } else { 'L' }, x(*step), y(*value));
                d
            })
        };
        let quarters = || [0.0, 0.5, 1.0].into_iter();
        Self {
            label,
            y_ticks: quarters().map(|part| Tick { at: y(part * top), text: short(part * top) }).collect(),
            x_ticks: quarters()
                .map(|part| Tick { at: x(part * steps), text: short((part * steps).round()) })
                .collect(),
            paths: lines.iter().map(|(class, points)| Line { class, d: path(points) }).collect(),
            dots: dots
                .iter()
                .map(|(step, value)| Dot { x: x(*step), y: y(*value), step: *step, value: *value })
                .collect(),
        }
    }
}

/// The next round number: 1, 2, 3, 4, 5, 6 or 8 times a power of ten.
fn ceiling(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let rounds = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    rounds.into_iter().map(|round| round * power).find(|round| *round >= value).unwrap_or(value)
}

/// To a tenth of an SVG unit.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// A number at an axis.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 0.01 => format!("{value:.0e}"),
        _ => format!("{}", (value * 100.0).round() / 100.0),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A training that went as they do.
    pub fn example(stage: &str) -> Curve {
        let entry = |n: u64| {
            let step = n as f64;
            let noise = 0.15 * ((step * 12.9898).sin() * 43758.5453).fract();
            Entry {
                step: n,
                loss: 0.4 + 4.0 * (-step / 150.0).exp() + noise,
                lr: 1e-4 * (step / 45.0).min(0.5 + 0.5 * (step / 286.0).cos()),
                eval: n.is_multiple_of(100).then(|| (0.5 + 3.5 * (-step / 150.0).exp(), 0.5)),
                benchmarks: (n.is_multiple_of(100).then(|| ("pope".to_owned(), 1.0 - (-step / 300.0).exp())))
                    .into_iter()
                    .collect(),
                ..Entry::default()
            }
        };
        Curve::of(stage, "projector".to_owned(), &Record((1..=900).map(entry).collect()))
    }

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!([0.07, 1.0, 4.2, 11.0, 0.0].map(ceiling).map(short), ["0.08", "1", "5", "20", "1"]);
        assert_eq!([0.0, 0.0001, 0.5, 2.5, 1500.0].map(short), ["0", "1e-4", "0.5", "2.5", "1500"]);
    }

    #[test]
    fn a_long_training_is_thinned_and_a_line_goes_from_edge_to_edge() {
        let points: Vec<(f64, f64)> = (0..=10_000).map(|step| (f64::from(step), 2.0)).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= POINTS && smoothed(&thin).iter().all(|(_, loss)| (loss - 2.0).abs() < 1e-9));
        let chart = Chart::new(String::new(), &[("train", &[(0.0, 0.0), (100.0, 4.0)])], &[]);
        assert_eq!(chart.paths[0].d, "M48 175L592 10");
    }
}
