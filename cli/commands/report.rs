//! `llavm report`: two or more evaluations side by side.

use crate::commands::locate;
use crate::ui::failure::Failure;
use crate::ui::output::print;
use crate::ui::table::{Align, Table};
use llavm_pipeline::units::thousands;
use llavm_stages::benchmarks::score::shown_number;
use llavm_stages::evaluate::compare::benchmarks::Line;
use llavm_stages::evaluate::compare::{self, Comparison, Measure, Verdict, html};
use llavm_stages::evaluate::{PAGE, REPORT};
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Smaller p values are not told apart.
const LEAST: f64 = 0.001;

/// Show an evaluation, or compare several on the questions they share, with paired tests
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  llavm report manifests/quickstart.toml\n  llavm report before/report.json after/report.json --html compared.html"
)]
pub struct Args {
    /// What `evaluate`, `benchmark` or `llavm score --out` wrote: the folder, the report.json in it, or the manifest whose last
    /// run made it (MANIFEST or MANIFEST:STAGE). The first is what the others are compared with
    #[arg(value_name = "EVALUATION", num_args = 1.., required = true)]
    evaluations: Vec<String>,

    /// Also write the comparison as one HTML file, with the questions that changed sides
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let paths: Vec<PathBuf> =
        args.evaluations.iter().map(|text| locate::evaluation(text)).collect::<Result<_, _>>()?;
    if let [one] = paths.as_slice() {
        return Ok(print(&show(one, args.html.is_some())?)?);
    }
    let found = compare::compare(&paths)?;
    if let Some(file) = &args.html {
        let page = html::render(&found)?;
        std::fs::write(file, page)
            .map_err(|error| Failure::failed(format!("{}: {error}", file.display()), None))?;
    }
    print(&render(&found))?;
    Ok(())
}

/// The numbers of one evaluation, and where its page is.
fn show(path: &Path, compares: bool) -> Result<String, Failure> {
    if compares {
        return Err(Failure::wrong("`--html` compares evaluations", "Name two or more."));
    }
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let file = folder.join(REPORT);
    let failed =
        |error: &dyn std::fmt::Display| Failure::failed(format!("{}: {error}", file.display()), None);
    let text = std::fs::read(&file).map_err(|error| failed(&error))?;
    let report: Value = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
    let scores = compare::benchmarks::of(&[folder.to_owned()])?;
    if !scores.is_empty() {
        return Ok(format!("{}\n{}\n", benchmarks(&scores, &[""]), folder.join(PAGE).display()));
    }
    let mut numbers = Table::new(&[("measure", Align::Left), ("value", Align::Right)]);
    // `pictures` says what `images` says, for readers of earlier reports.
    for (name, value) in report.as_object().into_iter().flatten().filter(|(name, _)| *name != "pictures") {
        if let Some(number) = value.as_f64() {
            let whole = value.as_u64().map(thousands);
            numbers.row(vec![name.clone(), whole.unwrap_or_else(|| format!("{number:.4}"))]);
        }
    }
    Ok(format!("{}\n{}\n", numbers.draw(), folder.join(PAGE).display()))
}

fn render(found: &Comparison) -> String {
    let mut runs = Table::new(&[("", Align::Left), ("evaluation", Align::Left), ("questions", Align::Right)]);
    for run in &found.runs {
        runs.row(vec![run.label.clone(), run.name.clone(), thousands(run.rows as u64)]);
    }
    let mut out = runs.draw();
    if !found.benchmarks.is_empty() {
        let labels: Vec<&str> = found.runs.iter().map(|run| run.label.as_str()).collect();
        let _ = writeln!(out, "\n{}", benchmarks(&found.benchmarks, &labels).trim_end());
    }
    let first = found.runs.first().map_or("", |run| run.label.as_str());
    for other in &found.against {
        let _ = writeln!(
            out,
            "\n{} against {first}, on {} questions that all of them asked\n",
            other.label,
            thousands(found.shared as u64)
        );
        out += &measures(first, &other.label, &other.measures);
        let _ = writeln!(
            out,
            "\n{} is right on {} that {first} gets wrong, and wrong on {} that {first} gets right (sign test over images: p {})",
            other.label,
            thousands(other.gained as u64),
            thousands(other.lost as u64),
            if other.p < LEAST { format!("< {LEAST}") } else { format!("= {:.3}", other.p) },
        );
    }
    out
}

/// The scores of benchmarks, a column for each run.
fn benchmarks(lines: &[Line], labels: &[&str]) -> String {
    let mut columns = vec![("benchmark", Align::Left), ("rule", Align::Left), ("number", Align::Left)];
    for label in labels {
        columns.extend([(*label, Align::Right), ("95% interval", Align::Right)]);
    }
    let mut table = Table::new(&columns);
    for line in lines {
        let mut cells = vec![line.benchmark.clone(), line.rule.clone(), line.number.clone()];
        for value in &line.values {
            let interval = value.and_then(|value| value.ci);
            cells.push(value.map_or_else(|| "-".to_owned(), |value| shown_number(value.value)));
            cells.push(
                interval
                    .map(|[lo, hi]| format!("{} … {}", shown_number(lo), shown_number(hi)))
                    .unwrap_or_default(),
            );
        }
        table.row(cells);
    }
    table.draw()
}

fn measures(first: &str, other: &str, measures: &[Measure]) -> String {
    let names = [first, other, "difference", "95% interval", "p", "corrected"];
    let right = names.map(|name| (name, Align::Right));
    let columns = [&[("", Align::Left)], right.as_slice(), &[("", Align::Left)]].concat();
    let mut table = Table::new(&columns);
    for measure in measures {
        let interval =
            measure.interval.map(|[lo, hi]| format!("{} … {}", measure.apart(lo), measure.apart(hi)));
        table.row(vec![
            measure.name.to_owned(),
            measure.text(measure.values[0]),
            measure.text(measure.values[1]),
            measure.apart(measure.difference),
            interval.unwrap_or_default(),
            measure.p.map(chance).unwrap_or_default(),
            measure.corrected_p.map(chance).unwrap_or_default(),
            match measure.verdict {
                Verdict::Better => "better".to_owned(),
                Verdict::Worse => "worse".to_owned(),
                Verdict::Same => String::new(),
            },
        ]);
    }
    table.draw()
}

/// A p value.
fn chance(p: f64) -> String {
    if p < LEAST { format!("<{LEAST}") } else { format!("{p:.3}") }
}

/// A number of a measure, and a difference of two, as the terminal shows them.
trait Shown {
    fn text(&self, value: f64) -> String;
    fn apart(&self, difference: f64) -> String;
}

impl Shown for Measure {
    fn text(&self, value: f64) -> String {
        if self.share { format!("{:.1} %", 100.0 * value) } else { format!("{value:.3}") }
    }

    fn apart(&self, difference: f64) -> String {
        if self.share { format!("{:+.1}", 100.0 * difference) } else { format!("{difference:+.3}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;
    use llavm_stages::evaluate::compare::{Against, Run};

    #[test]
    fn a_comparison_on_the_terminal() {
        let run =
            |label: &str, name: &str, rows| Run { label: label.to_owned(), name: name.to_owned(), rows };
        let measure = |name, share, values: [f64; 2], p, verdict| Measure {
            name,
            share,
            values,
            difference: values[1] - values[0],
            interval: Some([values[1] - values[0] - 0.02, values[1] - values[0] + 0.02]),
            p: Some(p),
            corrected_p: Some(f64::min(3.0 * p, 1.0)),
            verdict,
            sign: 1.0,
        };
        let found = Comparison {
            runs: vec![run("A", ".llavm/jobs/align-report", 1250), run("B", ".llavm/jobs/lora-report", 1200)],
            shared: 1200,
            against: vec![Against {
                label: "B".to_owned(),
                measures: vec![
                    measure("loss", false, [0.312, 0.2504], 0.0009, Verdict::Better),
                    measure("exact match", true, [0.861, 0.902], 0.002, Verdict::Better),
                    measure("BLEU-4", false, [0.31, 0.309], 0.8, Verdict::Same),
                ],
                gained: 61,
                lost: 12,
                p: 0.000_000_01,
                changes: Vec::new(),
            }],
            benchmarks: Vec::new(),
        };
        assert_snapshot!(render(&found), @r"
           evaluation                questions
        A  .llavm/jobs/align-report      1,250
        B  .llavm/jobs/lora-report       1,200

        B against A, on 1,200 questions that all of them asked

                          A       B  difference     95% interval       p  corrected
        loss          0.312   0.250      -0.062  -0.082 … -0.042  <0.001      0.003  better
        exact match  86.1 %  90.2 %        +4.1      +2.1 … +6.1   0.002      0.006  better
        BLEU-4        0.310   0.309      -0.001  -0.021 … +0.019   0.800      1.000

        B is right on 61 that A gets wrong, and wrong on 12 that A gets right (sign test over images: p < 0.001)
        ");
    }
}
