//! `llavm verify`: is every stored file what was written?

use crate::args::ManifestArgs;
use crate::failure::{Failure, Outcome};
use crate::output::{Align, Table, bytes, print, thousands};
use llavm_pipeline::inspect::verify::{Problem, Verification};
use llavm_pipeline::{Engine, Options};

/// Read every file of the store and compare it with its digest
///
/// A damaged file is no disaster: the next run that uses it makes it again.
#[derive(clap::Args)]
#[command(after_help = "Example: llavm verify manifests/quickstart.toml")]
pub struct Args {
    #[command(flatten)]
    manifest: ManifestArgs,
}

pub fn run(args: &Args) -> Outcome {
    let engine = Engine::open(args.manifest.load()?.graph, Options::default())?;
    let verification = engine.verify()?;
    print(&report(&verification))?;
    if verification.problems.is_empty() {
        return Ok(());
    }
    let n = verification.problems.len();
    let (files, are) = if n == 1 { ("file", "is") } else { ("files", "are") };
    let help = "`llavm run` makes damaged and missing files again; `llavm gc` drops strays and leftovers.";
    Err(Failure::failed(
        format!("{n} {files} of the store {are} not as they should be"),
        Some(help.to_owned()),
    ))
}

fn report(verification: &Verification) -> String {
    let mut out = String::new();
    if !verification.problems.is_empty() {
        let mut table = Table::new(&[("problem", Align::Left), ("file", Align::Left)]);
        for finding in &verification.problems {
            table.row(vec![word(finding.problem).to_owned(), finding.path.display().to_string()]);
        }
        out += &table.draw();
        out.push('\n');
    }
    let unfinished = match verification.unfinished.len() {
        0 => String::new(),
        1 => "; 1 interrupted job can go on".to_owned(),
        n => format!("; {n} interrupted jobs can go on"),
    };
    let (files, size) = (thousands(verification.files as u64), bytes(verification.bytes));
    out + &format!("{files} files read, {size}, {} problems{unfinished}\n", verification.problems.len())
}

fn word(problem: Problem) -> &'static str {
    match problem {
        Problem::Damaged => "damaged: not what was written",
        Problem::Missing => "missing: a record names it",
        Problem::Stray => "stray: no record names it",
        Problem::Leftover => "leftover of a killed run",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;
    use llavm_pipeline::inspect::verify::Finding;

    #[test]
    fn problems_are_listed_before_the_count() {
        let finding = |path: &str, problem| Finding { path: path.into(), problem };
        let verification = Verification {
            files: 1200,
            bytes: 3 << 30,
            problems: vec![
                finding("tables/chat/0a.arrow", Problem::Damaged),
                finding("tables/chat/tmp-7", Problem::Leftover),
            ],
            unfinished: vec!["jobs/align/1".into()],
        };
        assert_snapshot!(report(&verification), @r"
        problem                        file
        damaged: not what was written  tables/chat/0a.arrow
        leftover of a killed run       tables/chat/tmp-7

        1,200 files read, 3.0 GiB, 2 problems; 1 interrupted job can go on
        ");
    }
}
