//! `llavm graph`: the stages and their wiring, as text, Mermaid or DOT.

use crate::commands::args::ManifestArgs;
use crate::ui::failure::Outcome;
use crate::ui::output::print;
use crate::ui::table::{Align, Table};
use llavm_pipeline::Graph;
use llavm_pipeline::graph::{InputGroup, Node};
use std::fmt::Write;

/// Show the stages of a manifest and what each reads
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  llavm graph manifests/quickstart.toml\n  llavm graph manifests/quickstart.toml --format dot | dot -Tsvg > graph.svg"
)]
pub struct Args {
    #[command(flatten)]
    manifest: ManifestArgs,

    /// text, mermaid (for Markdown) or dot (for Graphviz)
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    Text,
    Mermaid,
    Dot,
}

pub fn run(args: &Args) -> Outcome {
    let graph = args.manifest.load()?.graph;
    print(&match args.format {
        Format::Text => text(&graph),
        Format::Mermaid => mermaid(&graph),
        Format::Dot => dot(&graph),
    })?;
    Ok(())
}

fn text(graph: &Graph) -> String {
    let mut table = Table::new(&[("stage", Align::Left), ("kind", Align::Left), ("reads", Align::Left)]);
    for node in &graph.nodes {
        table.row(vec![node.name.clone(), node.stage.kind.to_owned(), reads(graph, node)]);
    }
    table.draw()
}

/// "labels + pixels" for tables that line up; groups to mix after one another with their weights.
fn reads(graph: &Graph, node: &Node) -> String {
    let names = |group: &InputGroup| {
        group.tables.iter().map(|&table| graph.nodes[table].name.as_str()).collect::<Vec<_>>().join(" + ")
    };
    match node.inputs.as_slice() {
        [] => "raw files".to_owned(),
        [group] => names(group),
        groups if node.stage.role.is_job() => groups.iter().map(names).collect::<Vec<_>>().join(", "),
        groups => {
            let weighted: Vec<String> =
                groups.iter().map(|group| format!("{} × ({})", group.weight, names(group))).collect();
            weighted.join(", ")
        }
    }
}

fn mermaid(graph: &Graph) -> String {
    let mut out = String::from("flowchart LR\n");
    for (index, node) in graph.nodes.iter().enumerate() {
        let _ = writeln!(out, "  s{index}[\"{}<br/><small>{}</small>\"]", node.name, node.stage.kind);
    }
    for (from, to) in edges(graph) {
        let _ = writeln!(out, "  s{from} --> s{to}");
    }
    out
}

fn dot(graph: &Graph) -> String {
    let mut out = String::from("digraph manifest {\n  rankdir = LR;\n  node [shape = box];\n");
    for (index, node) in graph.nodes.iter().enumerate() {
        let _ = writeln!(out, "  s{index} [label = \"{}\\n{}\"];", node.name, node.stage.kind);
    }
    for (from, to) in edges(graph) {
        let _ = writeln!(out, "  s{from} -> s{to};");
    }
    out + "}\n"
}

/// (read, reader), in the order of readers.
fn edges(graph: &Graph) -> impl Iterator<Item = (usize, usize)> {
    graph.nodes.iter().enumerate().flat_map(|(to, node)| node.tables().map(move |from| (from, to)))
}
