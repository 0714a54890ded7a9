//! `llavm validate`: is the manifest right, and are its files there?

use crate::commands::args::ManifestArgs;
use crate::ui::failure::Outcome;
use crate::ui::output::print;

/// Check a manifest without running anything
///
/// Reports every mistake at once, each with its place in the file and the nearest name that would have been right. Also looks
/// whether the files it names are there, and, where they are small or say what their columns are, at these.
#[derive(clap::Args)]
#[command(after_help = "Example: llavm validate manifests/quickstart.toml")]
pub struct Args {
    #[command(flatten)]
    manifest: ManifestArgs,
}

pub fn run(args: &Args) -> Outcome {
    let manifest = args.manifest.load()?;
    let nodes = manifest.graph.nodes.len();
    manifest.check_files(&(0..nodes).collect::<Vec<_>>())?;
    let notes = manifest.preview(&(0..nodes).collect::<Vec<_>>())?;
    for (stage, note) in notes {
        print(&format!("{stage}: {note}\n"))?;
    }
    let stages = if nodes == 1 { "1 stage".to_owned() } else { format!("{nodes} stages") };
    print(&format!("{} is fine: {stages}\n", args.manifest.path.display()))?;
    Ok(())
}
