//! `llavm score`: answers to a public benchmark that were made elsewhere, scored.

use crate::ui::failure::{Failure, Outcome};
use crate::ui::output::{note, print, print_json};
use crate::ui::table::{Align, Table};
use llavm_pipeline::StageError;
use llavm_pipeline::units::thousands;
use llavm_stages::benchmarks::files;
use llavm_stages::benchmarks::item::Item;
use llavm_stages::benchmarks::predictions::{self, Answer, Paired};
use llavm_stages::benchmarks::rule::Rule;
use llavm_stages::benchmarks::score::{self, Number, Score};
use llavm_stages::benchmarks::{BENCHMARKS, Benchmark, find, sources};
use llavm_stages::evaluate::prediction::{self, PREDICTIONS};
use llavm_stages::evaluate::scores::Scores;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Every rule of a benchmark.
const ALL: &str = "all";

/// Score answers to a public benchmark by the rules of lmms-eval and VLMEvalKit
#[derive(clap::Args)]
#[command(after_help = "Examples:
  llavm score mmbench-en Model_MMBench_DEV_EN.xlsx
  llavm score pope 20260101_samples_pope.jsonl --rule all
  llavm score textvqa-val answers.jsonl --data validation-00000-of-00003.parquet --out scored && llavm report ours scored

Answers: VLMEvalKit's XLSX or TSV and lmms-eval's samples hold their questions; any other JSONL or JSON has `index` (or
`question_id`, `id`, `doc_id`) and `prediction`, and needs --data.
Left out by name: rules that ask a judge model (their unread answers are counted instead), METEOR and SPICE.")]
pub struct Args {
    /// The benchmark; `llavm score list` names them and their rules
    #[arg(value_name = "BENCHMARK")]
    benchmark: String,

    /// Files of answers: xlsx, tsv, jsonl, json or parquet
    #[arg(value_name = "ANSWERS")]
    answers: Vec<PathBuf>,

    /// The benchmark's own files (VLMEvalKit's TSV or lmms-eval's Parquet), in their order
    #[arg(long, value_name = "FILE")]
    data: Vec<PathBuf>,

    /// A rule by name, or `all`; the benchmark's first where none is named
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,

    /// Questions without an answer are left out instead of being an error
    #[arg(long, requires = "data")]
    partial: bool,

    /// Replicates behind each interval
    #[arg(long, default_value_t = 1000, value_name = "N")]
    bootstrap: usize,

    /// Seed of the replicates
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,

    /// Also write a folder that `llavm report` compares with others: report.json, predictions.parquet
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

pub fn run(args: &Args) -> Outcome {
    if args.benchmark == "list" {
        return Ok(print(&list())?);
    }
    let benchmark = find(&args.benchmark).ok_or_else(|| {
        let names: Vec<&str> = BENCHMARKS.iter().map(|benchmark| benchmark.name).collect();
        Failure::wrong(format!("there is no benchmark `{}`", args.benchmark), names.join(", "))
    })?;
    if args.answers.is_empty() {
        let help = "llavm score BENCHMARK ANSWERS...";
        return Err(Failure::wrong("there are no answers to score".to_owned(), help));
    }
    let rules = rules(benchmark, args.rule.as_deref())?;
    let paired = paired(args)?;
    let scores: Vec<Score> = rules
        .into_iter()
        .map(|rule| score::score(benchmark, rule, &paired, args.bootstrap, args.seed))
        .collect();
    if let Some(folder) = &args.out {
        write(folder, benchmark, &scores, &paired)?;
        note(&format!("{}: report.json and {PREDICTIONS} written", folder.display()));
    }
    if args.json {
        print_json(&json(&scores)?)?;
    } else {
        print(&render(&scores))?;
    }
    Ok(())
}

fn rules(benchmark: &'static Benchmark, name: Option<&str>) -> Result<Vec<&'static Rule>, Failure> {
    if name == Some(ALL) {
        return Ok(benchmark.rules.iter().collect());
    }
    let unknown = || {
        let names: Vec<&str> = benchmark.rules.iter().map(|rule| rule.name).collect();
        let text = format!("{} has no rule `{}`", benchmark.name, name.unwrap_or_default());
        Failure::wrong(text, format!("its rules: {}, {ALL}", names.join(", ")))
    };
    Ok(vec![benchmark.rule(name).ok_or_else(unknown)?])
}

fn paired(args: &Args) -> Result<Paired, StageError> {
    let mut answers = Vec::new();
    for path in &args.answers {
        for (row, record) in files::read(path)?.into_iter().enumerate() {
            answers.push(Answer::of(record, row).map_err(|error| files::in_file(path, &error))?);
        }
    }
    let named = |error: StageError| match args.answers.as_slice() {
        [one] => files::in_file(one, &error),
        _ => error,
    };
    if args.data.is_empty() {
        return predictions::own_questions(answers).map_err(named);
    }
    let mut items = Vec::new();
    for path in &args.data {
        for record in files::read(path)? {
            let row = items.len();
            let item = Item::of(record, row).map_err(StageError::new);
            items.push(item.map_err(|error| files::in_file(path, &error))?);
        }
    }
    predictions::pair(items, answers, args.partial).map_err(named)
}

fn json(scores: &[Score]) -> Result<String, Failure> {
    serde_json::to_string_pretty(scores).map_err(|error| Failure::failed(error.to_string(), None))
}

/// The folder of an evaluation, without what only the model itself knows.
fn write(folder: &Path, benchmark: &Benchmark, scores: &[Score], paired: &Paired) -> Outcome {
    let failed =
        |path: &Path, error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()), None);
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    let rows = score::predictions(benchmark, paired);
    let columns = score::COLUMNS.map(str::to_owned);
    prediction::write(&folder.join(PREDICTIONS), &rows, &Scores::of(&rows), &columns)?;
    let path = folder.join("report.json");
    let report = serde_json::json!({
        "benchmark": benchmark.name, "scores": scores, "questions": rows.len(), "rejected": {}, "rejects": [],
    });
    std::fs::write(&path, format!("{report:#}\n")).map_err(|error| failed(&path, error))
}

fn list() -> String {
    let columns = ["benchmark", "asks", "rules", "fetched as"].map(|name| (name, Align::Left));
    let mut table = Table::new(&columns);
    for benchmark in BENCHMARKS {
        let rules: Vec<&str> = benchmark.rules.iter().map(|rule| rule.name).collect();
        let tables = sources::of(benchmark.name).filter_map(|source| source.tsv).map(|tsv| tsv.file());
        let names: Vec<&str> = sources::of(benchmark.name).map(|source| source.name).chain(tables).collect();
        table.row(vec![
            benchmark.name.to_owned(),
            benchmark.about.to_owned(),
            rules.join(", "),
            names.join(", "),
        ]);
    }
    table.draw()
}

fn render(scores: &[Score]) -> String {
    let mut out = String::new();
    for score in scores {
        let rows = thousands(score.rows as u64);
        let _ = writeln!(out, "{}{}, rule {}: {rows} questions\n", blank(&out), score.benchmark, score.rule);
        let mut table =
            Table::new(&[("", Align::Left), ("score", Align::Right), ("95% interval", Align::Right)]);
        for Number { name, value, ci } in &score.numbers {
            let interval =
                ci.map(|[lo, hi]| format!("{} … {}", score::shown_number(lo), score::shown_number(hi)));
            table.row(vec![
                name.clone(),
                value.map_or_else(|| "-".to_owned(), score::shown_number),
                interval.unwrap_or_default(),
            ]);
        }
        out += &table.draw();
        if score.unread > 0 {
            let unread = thousands(score.unread as u64);
            let _ = writeln!(out, "\n{unread} answers cannot be read by this rule and count as wrong");
        }
    }
    out
}

fn blank(before: &str) -> &'static str {
    if before.is_empty() { "" } else { "\n" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;

    fn args(folder: &Path, benchmark: &str, answers: &str) -> Args {
        Args {
            benchmark: benchmark.to_owned(),
            answers: vec![folder.join(answers)],
            data: Vec::new(),
            rule: None,
            partial: false,
            bootstrap: 200,
            seed: 0,
            json: false,
            out: None,
        }
    }

    #[test]
    fn a_table_of_answers_is_scored_with_its_own_questions() {
        let folder = tempfile::tempdir().unwrap();
        let rows = [
            "0\tIs there a dog?\tYes\tYes, there is.\ta.png",
            "1\tA cat?\tNo\tno\ta.png",
            "2\tA bird?\tNo\tI see.\tb.png",
        ];
        let table = format!("index\tquestion\tanswer\tprediction\timage_path\n{}\n", rows.join("\n"));
        std::fs::write(folder.path().join("answers.tsv"), table).unwrap();
        let mut args = args(folder.path(), "pope", "answers.tsv");
        args.rule = Some("vlmevalkit".to_owned());
        let paired = paired(&args).unwrap();
        let pope = find("pope").unwrap();
        let score = score::score(pope, pope.rule(Some("vlmevalkit")).unwrap(), &paired, 0, 0);
        assert_snapshot!(render(&[score]), @"
        pope, rule vlmevalkit: 3 questions

                    score  95% interval
        Overall    100.00
        acc         66.67
        precision  100.00
        recall     100.00

        1 answers cannot be read by this rule and count as wrong
        ");
        args.out = Some(folder.path().join("out"));
        assert!(run(&args).is_ok());
        let (rows, _) = prediction::read(&folder.path().join("out").join(PREDICTIONS)).unwrap();
        assert_eq!(
            (rows.len(), rows[2].answer.as_str(), rows[0].image.as_deref()),
            (3, "I see.", Some("a.png"))
        );
        assert!(folder.path().join("out/report.json").is_file());
    }

    fn sample(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("data/benchmarks").join(name)
    }

    #[test]
    fn what_vlmevalkit_and_lmms_eval_write_is_scored_as_it_is() {
        let mut xlsx = args(Path::new(""), "mmbench-en", "");
        xlsx.answers = vec![sample("model_MMBench_DEV_EN.xlsx")];
        let rows = paired(&xlsx).unwrap();
        assert_eq!((rows.items.len(), rows.items[0].answer(), rows.answers[0].as_str()), (9, "A", "A. red"));
        let benchmark = find("mmbench-en").unwrap();
        let score = score::score(benchmark, benchmark.rule(None).unwrap(), &rows, 0, 0);
        assert!(
            (score.numbers[0].value.unwrap() - 2.0 / 3.0).abs() < 1e-12,
            "one of three questions fails in one rotation"
        );
        let mut samples = args(Path::new(""), "pope", "");
        samples.answers = vec![sample("samples_pope.jsonl")];
        let own = paired(&samples).unwrap();
        samples.data = vec![sample("pope.parquet")];
        let with_data = paired(&samples).unwrap();
        assert_eq!(own.answers, with_data.answers);
        let pope = find("pope").unwrap();
        let accuracy =
            |paired: &Paired| score::score(pope, pope.rule(None).unwrap(), paired, 0, 0).numbers[0].value;
        assert_eq!(accuracy(&own), accuracy(&with_data));
        let images: std::collections::BTreeSet<_> = with_data.items.iter().map(|item| &item.images).collect();
        assert_eq!(images.len(), 3);
    }

    #[test]
    fn what_is_unknown_is_named_with_what_there_is() {
        let folder = tempfile::tempdir().unwrap();
        assert!(run(&args(folder.path(), "popp", "x.tsv")).is_err());
        assert!(rules(find("pope").unwrap(), Some("mine")).is_err());
        assert_eq!(rules(find("pope").unwrap(), Some(ALL)).map_or(0, |rules| rules.len()), 3);
        let shown = |args: &Args| paired(args).unwrap_err().to_string();
        assert!(shown(&args(folder.path(), "pope", "x.tsv")).contains("x.tsv"));
        std::fs::write(folder.path().join("a.jsonl"), "{\"id\": 1, \"prediction\": \"yes\"}\n").unwrap();
        let error = shown(&args(folder.path(), "pope", "a.jsonl"));
        assert!(error.contains("a.jsonl: row 1: there is no `answer`"), "{error}");
        assert!(list().contains("mmbench-cn"));
    }
}
