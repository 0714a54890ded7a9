//! `llavm peek`: rows of a stage as the model sees them.

mod gather;
mod html;
mod rejected;
mod row;
mod text;
mod tokens;

use crate::commands::args::{ManifestArgs, stage};
use crate::ui::failure::{Failure, Outcome, colours};
use crate::ui::output::{print, print_styled};
use gather::gather;
use llavm_pipeline::graph::NodeIndex;
use llavm_pipeline::{Engine, Graph, Options};
use row::Page;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use text::Colours;

/// Show rows as the model sees them: image, rendered template, tokens coloured by loss
///
/// Works on any stage that gives a table; the image is found through the stages it comes from.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  llavm peek manifests/quickstart.toml tokens\n  llavm peek manifests/quickstart.toml labels --rows 20 --html look.html\n  llavm peek manifests/sets/wukong.toml clean --rejected"
)]
pub struct Args {
    #[command(flatten)]
    manifest: ManifestArgs,

    /// The stage
    stage: String,

    /// How many rows
    #[arg(long, short = 'n', value_name = "N", default_value_t = 3)]
    rows: usize,

    /// The first row to show, counted from 0
    #[arg(long, value_name = "ROW", default_value_t = 0)]
    first: u64,

    /// Only rows that cannot be used, and how many there are for each reason
    #[arg(long)]
    rejected: bool,

    /// Write a page for the browser instead
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub fn run(args: &Args) -> Outcome {
    let manifest = args.manifest.load()?;
    let node = stage(&manifest.graph, &args.stage)?;
    wants_table(&manifest.graph, node)?;
    let engine = Engine::open(manifest.graph, Options::default())?;
    let gather = if args.rejected { rejected::gather_rejected } else { gather };
    let page = gather(&engine, node, args.first, args.rows)?;
    match &args.html {
        Some(file) => write(&page, file),
        None => Ok(print_styled(&text::render(&page, terminal_colours()))?),
    }
}

fn wants_table(graph: &Graph, node: NodeIndex) -> Outcome {
    let chosen = &graph.nodes[node];
    if chosen.output().is_some() {
        return Ok(());
    }
    let tables: Vec<&str> =
        graph.nodes.iter().filter(|node| node.output().is_some()).map(|node| node.name.as_str()).collect();
    Err(Failure::wrong(
        format!("`{}` ({}) gives a folder, which has no rows to show", chosen.name, chosen.stage.kind),
        format!("Stages that give a table: {}.", tables.join(", ")),
    ))
}

fn write(page: &Page, file: &Path) -> Outcome {
    std::fs::write(file, html::render(page))
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", file.display()), None))?;
    print(&format!("{} rows of {} in {}\n", page.rows.len(), page.stage, file.display()))?;
    Ok(())
}

fn terminal_colours() -> Colours {
    if !colours(std::io::stdout().is_terminal()) {
        return Colours::None;
    }
    match std::env::var("COLORTERM").as_deref() {
        Ok("truecolor" | "24bit") => Colours::True,
        _ => Colours::Few,
    }
}

#[cfg(test)]
mod tests {
    use super::row::{Image, Message, Page, Row, Segment, Token};

    /// A page with everything a page can have.
    pub(super) fn page() -> Page {
        let segment = |text: &str, train| Segment { text: text.to_owned(), train };
        let token = |text: &str, ids: &[u32], times, train| Token {
            text: text.to_owned(),
            ids: ids.to_vec(),
            times,
            train,
        };
        let fine = Row {
            position: 0,
            id: "GCC_train_000000017".to_owned(),
            images: vec![Image { width: 2, height: 1, rgb: vec![255, 0, 0, 0, 0, 255] }],
            messages: vec![Message { role: "user".to_owned(), content: "What is <this>?".to_owned() }],
            segments: vec![
                segment("<|im_start|>user\nWhat is <this>?<|im_end|>\n<|im_start|>assistant\n", false),
                segment("A 图.<|im_end|>", true),
            ],
            tokens: vec![
                token("<|image_pad|>", &[151_655], 49, false),
                token("?", &[30], 1, false),
                token("A", &[32], 1, true),
                token(" 图", &[55_806, 122], 1, true),
            ],
            others: vec![("n_images".to_owned(), "1".to_owned())],
            reject: None,
        };
        let rejected = Row {
            position: 1,
            id: "GCC_train_000000018".to_owned(),
            reject: Some("decode-resize/undecodable: image 1: begins with `<html>`".to_owned()),
            ..Row::default()
        };
        Page {
            manifest: "cc3m & more".to_owned(),
            stage: "tokens".to_owned(),
            kind: "tokenize".to_owned(),
            rows: vec![fine, rejected],
            reasons: None,
        }
    }
}
