//! `llavm gc`: drop results that no manifest needs any more.

use crate::args::ManifestArgs;
use crate::failure::Outcome;
use crate::output::{Align, Table, bytes, print};
use llavm_pipeline::inspect::gc::Collected;
use llavm_pipeline::{Engine, Options};

/// Delete results in the store that no manifest needs any more
///
/// A store remembers the manifests that were run on it; what their last runs use stays.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  llavm gc manifests/quickstart.toml --dry-run\n  llavm gc manifests/quickstart.toml"
)]
pub struct Args {
    #[command(flatten)]
    manifest: ManifestArgs,

    /// List what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: &Args) -> Outcome {
    let engine = Engine::open(args.manifest.load()?.graph, Options::default())?;
    print(&report(&engine.gc(args.dry_run)?, args.dry_run))?;
    Ok(())
}

fn report(collected: &Collected, dry_run: bool) -> String {
    let mut out = String::new();
    if !collected.dropped.is_empty() {
        let mut table = Table::new(&[("size", Align::Right), ("file or folder", Align::Left)]);
        for dropped in &collected.dropped {
            table.row(vec![bytes(dropped.bytes), dropped.path.display().to_string()]);
        }
        out += &table.draw();
        out.push('\n');
    }
    let did = if dry_run { "would be freed" } else { "freed" };
    out + &format!("{} {did}, {} in use\n", bytes(collected.bytes), bytes(collected.kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use llavm_pipeline::inspect::gc::Dropped;

    #[test]
    fn what_is_dropped_is_listed_with_its_size() {
        let dropped = vec![Dropped { path: "tables/chat/0a.arrow".into(), bytes: 2048 }];
        let collected = Collected { dropped, bytes: 2048, kept: 5 << 20 };
        assert_eq!(
            report(&collected, true),
            "   size  file or folder\n2.0 KiB  tables/chat/0a.arrow\n\n2.0 KiB would be freed, 5.0 MiB in use\n"
        );
        assert_eq!(report(&Collected::default(), false), "0 B freed, 0 B in use\n");
    }
}
