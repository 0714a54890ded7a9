//! `llavm gc`: drop results that no manifest needs any more.

use crate::commands::args::ManifestArgs;
use crate::commands::locate;
use crate::ui::failure::{Failure, Outcome};
use crate::ui::output::{note_styled, print};
use crate::ui::table::{Align, Table};
use llavm_pipeline::gc::{Category, Collected, Dropped, Keep};
use llavm_pipeline::units::{bytes, counted};
use llavm_pipeline::{Engine, Options};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal};
use std::time::Duration;

/// What [`Category`] calls the record of an output, and what records name.
const RECORD: &str = "record";
const NAMED: [&str; 2] = ["partition", "folder"];

/// Delete results in the store that no manifest needs any more
///
/// A store remembers each manifest, and each set of `--set`, that was run on it; what their last runs use stays. What would go
/// is listed by stage (with -v file by file), and deleted after a yes.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  llavm gc manifests/quickstart.toml --dry-run\n  llavm gc manifests/quickstart.toml --keep-last 3 --older-than 30d --yes"
)]
pub struct Args {
    #[command(flatten)]
    manifest: ManifestArgs,

    /// List what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,

    /// Delete without asking
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,

    /// Of each manifest, keep only the results of the N sets of `--set` that were run last
    #[arg(long, value_name = "N")]
    keep_last: Option<usize>,

    /// Let go of what was last run longer ago than this: 12h, 30d
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<Duration>,
}

/// `12h` or `30d`.
fn age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no age; write hours or days, such as 12h or 30d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let hours = match unit {
        "h" => number,
        "d" => number.saturating_mul(24),
        _ => return Err(wrong()),
    };
    Ok(Duration::from_secs(hours.saturating_mul(3600)))
}

pub fn run(args: &Args, verbose: bool) -> Outcome {
    let engine = Engine::open(args.manifest.load_with_store()?.graph, Options::default())?;
    let keep = Keep { last: args.keep_last, older_than: args.older_than };
    let listed = engine.unused(keep)?;
    print(&report(&listed, !args.yes, verbose))?;
    if args.dry_run || listed.dropped.is_empty() && listed.roots.is_empty() {
        return Ok(());
    }
    if !args.yes {
        if !io::stdin().is_terminal() {
            let help = "Run the same command with --yes to delete what is listed.";
            return Err(Failure::wrong("nothing was deleted: there is no terminal to ask on", help));
        }
        if !confirmed()? {
            return Ok(print("nothing was deleted\n")?);
        }
    }
    let dropped = engine.collect(keep, &listed)?;
    locate::forget_gone(engine.graph())?;
    print(&format!("{} freed\n", bytes(dropped.bytes)))?;
    Ok(())
}

fn confirmed() -> io::Result<bool> {
    note_styled("Delete all of this? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// `would`: nothing is deleted yet. With `all`, every file and folder is listed.
fn report(collected: &Collected, would: bool, all: bool) -> String {
    let mut out = String::new();
    for root in &collected.roots {
        let settings: String = root.settings.iter().map(|set| format!(" --set {set}")).collect();
        let line = format!("nothing is kept any more for {}{settings}\n", root.manifest.display());
        out.push_str(&line);
    }
    if !collected.dropped.is_empty() {
        out += &if all { each(&collected.dropped) } else { by_category(&collected.dropped) };
        out.push('\n');
    }
    let did = if would { "would be freed" } else { "to free" };
    out + &format!("{} {did}, {} in use\n", bytes(collected.bytes), bytes(collected.kept))
}

fn each(dropped: &[Dropped]) -> String {
    let mut table = Table::new(&[("size", Align::Right), ("file or folder", Align::Left)]);
    for dropped in dropped {
        table.row(vec![bytes(dropped.bytes), dropped.path.display().to_string()]);
    }
    table.draw()
}

/// How many of each category, the largest first. Records count with what they name.
fn by_category(dropped: &[Dropped]) -> String {
    let mut found = BTreeMap::<&Category, (u64, u64)>::new();
    for dropped in dropped {
        let (count, bytes) = found.entry(&dropped.category).or_default();
        (*count, *bytes) = (*count + 1, *bytes + dropped.bytes);
    }
    let records: Vec<&Category> = found.keys().copied().filter(|category| category.noun == RECORD).collect();
    for record in records {
        let named = |category: &&Category| category.stage == record.stage && NAMED.contains(&category.noun);
        let named = found.keys().copied().find(named);
        if let Some(named) = named
            && let Some((_, more)) = found.remove(record)
        {
            found.entry(named).or_default().1 += more;
        }
    }
    let mut found: Vec<(&Category, (u64, u64))> = found.into_iter().collect();
    found.sort_by_key(|(_, (_, bytes))| Reverse(*bytes));
    let mut table = Table::new(&[("size", Align::Right), ("stage", Align::Left), ("what", Align::Left)]);
    for (Category { stage, noun, kind }, (count, size)) in found {
        let kind = kind.as_ref().map_or(String::new(), |kind| format!(" of {kind}"));
        let what = format!("{}{kind}", counted(count, noun));
        table.row(vec![bytes(size), stage.clone().unwrap_or_default(), what]);
    }
    table.draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped(path: &str, bytes: u64, noun: &'static str, kind: Option<&str>) -> Dropped {
        let stage = path.split('/').nth(1).filter(|_| noun != "run folder").map(str::to_owned);
        Dropped {
            path: path.into(),
            bytes,
            category: Category { stage, noun, kind: kind.map(str::to_owned) },
        }
    }

    #[test]
    fn what_is_dropped_is_listed_by_stage_or_file_by_file() {
        let dropped = vec![
            dropped("tables/chat/0a.arrow", 1 << 20, "partition", None),
            dropped("tables/chat/0b.arrow", 1 << 20, "partition", None),
            dropped("tables/chat/0c.json", 2048, "record", None),
            dropped("jobs/lora/0d", 3 << 30, "folder", Some("train")),
            dropped("jobs/lora/0e.partial", 1 << 30, "interrupted job", None),
            dropped("tables/tokens/0f.json", 1024, "record", None),
            dropped("runs/2026", 512, "run folder", None),
        ];
        let collected = Collected { dropped, bytes: 2048, kept: 5 << 20, ..Collected::default() };
        insta::assert_snapshot!(report(&collected, true, false), @r"
           size  stage   what
        3.0 GiB  lora    1 folder of train
        1.0 GiB  lora    1 interrupted job
        2.0 MiB  chat    2 partitions
        1.0 KiB  tokens  1 record
          512 B          1 run folder

        2.0 KiB would be freed, 5.0 MiB in use
        ");
        assert!(report(&collected, true, true).contains("2.0 KiB  tables/chat/0c.json\n"));
        assert_eq!(report(&Collected::default(), false, false), "0 B to free, 0 B in use\n");
    }

    #[test]
    fn an_age_is_hours_or_days() {
        assert_eq!(age("12h"), Ok(Duration::from_hours(12)));
        assert_eq!(age("2d"), Ok(Duration::from_hours(48)));
        assert!(age("2").is_err() && age("").is_err() && age("2w").is_err() && age("ü").is_err());
    }
}
