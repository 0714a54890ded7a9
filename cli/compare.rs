//! `llavm report`: two or more evaluations side by side.

use crate::failure::Failure;
use crate::output::{Align, Table, print, thousands};
use llavm_stages::evaluate::compare::{self, Comparison, Measure, Verdict, html};
use std::fmt::Write;
use std::path::PathBuf;

/// Smaller p values are not told apart.
const LEAST: f64 = 0.001;

/// Compare evaluations on the questions they share, with paired tests
#[derive(clap::Args)]
#[command(after_help = "Example: llavm report before/report.json after/report.json --html compared.html")]
pub struct Args {
    /// What `evaluate` wrote: its folder or the report.json in it. The first is what the others are compared with
    #[arg(value_name = "EVALUATION", num_args = 2.., required = true)]
    paths: Vec<PathBuf>,

    /// Also write the comparison as one HTML file, with the questions that changed sides
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let found = compare::compare(&args.paths)?;
    if let Some(file) = &args.html {
        let page = html::render(&found)?;
        std::fs::write(file, page)
            .map_err(|error| Failure::failed(format!("{}: {error}", file.display()), None))?;
    }
    print(&render(&found))?;
    Ok(())
}

fn render(found: &Comparison) -> String {
    let mut runs = Table::new(&[("", Align::Left), ("evaluation", Align::Left), ("questions", Align::Right)]);
    for run in &found.runs {
        runs.row(vec![run.label.clone(), run.name.clone(), thousands(run.rows as u64)]);
    }
    let mut out = runs.draw();
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
            "\n{} is right on {} that {first} gets wrong, and wrong on {} that {first} gets right (sign test: p {})",
            other.label,
            thousands(other.gained as u64),
            thousands(other.lost as u64),
            if other.p < LEAST { format!("< {LEAST}") } else { format!("= {:.3}", other.p) },
        );
    }
    out
}

fn measures(first: &str, other: &str, measures: &[Measure]) -> String {
    let names = [first, other, "difference", "95% interval", "p"];
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
            verdict,
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
        };
        assert_snapshot!(render(&found), @r"
           evaluation                questions
        A  .llavm/jobs/align-report      1,250
        B  .llavm/jobs/lora-report       1,200

        B against A, on 1,200 questions that all of them asked

                          A       B  difference     95% interval       p
        loss          0.312   0.250      -0.062  -0.082 … -0.042  <0.001  better
        exact match  86.1 %  90.2 %        +4.1      +2.1 … +6.1   0.002  better
        BLEU-4        0.310   0.309      -0.001  -0.021 … +0.019   0.800

        B is right on 61 that A gets wrong, and wrong on 12 that A gets right (sign test: p < 0.001)
        ");
    }
}
