//! `llavm kinds`: what a stage can be, and the parameters it takes.

use crate::ui::failure::{Failure, Outcome};
use crate::ui::output::print;
use crate::ui::table::{Align, Table};
use llavm_pipeline::manifest::{Parameter, describe, did_you_mean};
use llavm_pipeline::registry::{Kind, RoleKind};
use serde_json::Value;

/// List the kinds of stages, or the parameters of one
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  llavm kinds\n  llavm kinds decode-resize")]
pub struct Args {
    /// The kind to describe, as in `kind = "…"`
    kind: Option<String>,
}

pub fn run(args: &Args) -> Outcome {
    let registry = llavm_stages::registry();
    let text = match &args.kind {
        None => overview(registry.kinds()),
        Some(name) => match registry.get(name) {
            Some(kind) => details(kind),
            None => return Err(unknown(name, registry.kinds())),
        },
    };
    print(&text)?;
    Ok(())
}

fn unknown(name: &str, kinds: &[Kind]) -> Failure {
    let names = kinds.iter().map(|kind| kind.name);
    Failure::wrong(format!("there is no kind `{name}`"), did_you_mean(name, "kinds", names))
}

fn overview(kinds: &[Kind]) -> String {
    let mut table =
        Table::new(&[("kind", Align::Left), ("role", Align::Left), ("what it does", Align::Left)]);
    for kind in kinds {
        table.row(vec![kind.name.to_owned(), kind.role.name().to_owned(), kind.about.to_owned()]);
    }
    table.draw() + "\n`llavm kinds KIND` lists the parameters of one.\n"
}

fn details(kind: &Kind) -> String {
    let mut table = Table::new(&[("parameter", Align::Left), ("default", Align::Left)]);
    for parameter in describe(kind) {
        table.row(vec![parameter.name.to_owned(), default(&parameter)]);
    }
    let parameters = if kind.params.is_empty() { String::new() } else { format!("\n{}", table.draw()) };
    format!("{} ({}): {}\n{}{parameters}", kind.name, kind.role.name(), kind.about, reads(kind.role))
}

fn reads(role: RoleKind) -> &'static str {
    match role {
        RoleKind::Source => "Reads raw files; it has no `from`.\n",
        RoleKind::Map => "Reads `from`: one table, or tables that line up. Gives a table.\n",
        RoleKind::Gather => "Reads `from`: tables that line up, or groups of them to mix. Gives a folder.\n",
        RoleKind::Job => "Reads `from`: stages that give folders. Gives a folder.\n",
    }
}

fn default(parameter: &Parameter) -> String {
    match &parameter.default {
        _ if parameter.required => "(must be given)".to_owned(),
        Some(Value::Null) => "(none)".to_owned(),
        Some(value) => value.to_string(),
        None => String::new(),
    }
}
