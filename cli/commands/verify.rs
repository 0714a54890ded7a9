//! `llavm verify`: is every stored file what was written?

use crate::commands::args::ManifestArgs;
use crate::ui::failure::{Failure, Outcome};
use crate::ui::interrupt;
use crate::ui::one_line;
use crate::ui::output::{note, print};
use crate::ui::progress::Progress;
use crate::ui::table::{Align, Table};
use llavm_pipeline::units::{bytes, thousands};
use llavm_pipeline::verify::{Problem, Verification};
use llavm_pipeline::{Ended, Engine, Options};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Read every file of the store and compare it with its digest
///
/// A damaged file is no disaster: it is remembered, and the next run makes exactly that file again.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  llavm verify manifests/quickstart.toml\n  llavm verify manifests/quickstart.toml --repair"
)]
pub struct Args {
    #[command(flatten)]
    manifest: ManifestArgs,

    /// Make what is damaged or missing again at once, and nothing else
    #[arg(long)]
    repair: bool,
}

pub fn run(args: &Args) -> Outcome {
    let engine = Engine::open(args.manifest.load_with_store()?.graph, Options::default())?;
    let mut verification = engine.verify()?;
    if args.repair && !verification.problems.is_empty() {
        print(&report(&verification))?;
        repair(&engine)?;
        verification = engine.verify()?;
    }
    print(&report(&verification))?;
    if verification.problems.is_empty() {
        return Ok(());
    }
    let n = verification.problems.len();
    let (files, are) = if n == 1 { ("file", "is") } else { ("files", "are") };
    let help = "`llavm run` makes damaged and missing files of its manifest again, `--repair` at once; `llavm gc` drops strays and leftovers.";
    Err(Failure::failed(
        format!("{n} {files} of the store {are} not as they should be"),
        Some(help.to_owned()),
    ))
}

/// Makes what is lost again, and says what that was.
fn repair(engine: &Engine) -> Outcome {
    let cancel = Arc::new(AtomicBool::new(false));
    interrupt::listen(&cancel)?;
    let progress = Progress::new(engine.graph(), false);
    engine.repair(&progress, &cancel, &|task, ended| {
        let what = match ended {
            Ended::Done(_) => "made again".to_owned(),
            Ended::Again(why) => format!("not made again: {why}"),
            Ended::Failed(cause) => format!("not made again: {cause}"),
        };
        note(&one_line(&format!("{} {}: {what}", task.stage, task.index)));
    })?;
    Ok(())
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
    use llavm_pipeline::verify::Finding;

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
