//! One file per command, each with its arguments and a function that runs it; and the help that lists them in groups.

mod args;
mod bench;
mod chat;
mod completions;
mod data_report;
mod doctor;
mod explain;
mod export;
mod fetch;
mod gc;
mod generate;
mod graph;
mod init;
mod kinds;
mod locate;
mod model;
mod peek;
mod report;
mod run;
mod score;
mod serve;
mod status;
mod validate;
mod verify;
mod work;

use crate::ui::failure::Outcome;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::fmt::Write;

/// The commands as the help lists them.
const GROUPS: [(&str, &[&str]); 4] = [
    (
        "Pipeline",
        &[
            "init",
            "run",
            "validate",
            "status",
            "explain",
            "graph",
            "peek",
            "data-report",
            "verify",
            "gc",
            "kinds",
            "work",
        ],
    ),
    ("Model", &["generate", "chat", "serve", "export", "report", "score", "doctor"]),
    ("Hub", &["fetch"]),
    ("Other", &["bench", "completions", "help"]),
];

/// From an image-text data set to token shards, pixels and a trained vision-language model.
///
/// A manifest (a TOML file) names stages; `llavm run` brings all of them up to date and never does the same work twice.
#[derive(Parser)]
#[command(
    name = "llavm",
    version,
    arg_required_else_help = true,
    after_help = "Start with: llavm init quickstart && llavm run quickstart.toml\n\nExit status: 0 done, 1 failed, 2 the command line or the manifest is wrong, 130 stopped by Ctrl-C."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Say what happens inside, on standard error (-vv for more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    Init(init::Args),
    Run(run::Args),
    Validate(validate::Args),
    Status(status::Args),
    Explain(explain::Args),
    Graph(graph::Args),
    Peek(peek::Args),
    DataReport(data_report::Args),
    Verify(verify::Args),
    Gc(gc::Args),
    Kinds(kinds::Args),
    Work(work::Args),
    Fetch(fetch::Args),
    Doctor(doctor::Args),
    Generate(generate::Args),
    Chat(chat::Args),
    Export(export::Args),
    Serve(serve::Args),
    Report(report::Args),
    Score(score::Args),
    Bench(bench::Args),
    Completions(completions::Args),
}

impl Cli {
    /// Reads the command line; a wrong one ends the program.
    pub fn read() -> Self {
        Self::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit())
    }

    /// Whether the command works through rows or tensors, and then ends.
    pub fn computes(&self) -> bool {
        use Command::{Bench, Chat, Generate, Run, Work};
        matches!(self.command, Run(_) | Work(_) | Generate(_) | Chat(_) | Bench(_))
    }

    pub fn run(&self) -> Outcome {
        match &self.command {
            Command::Init(args) => init::run(args),
            Command::Run(args) => run::run(args, self.verbose > 0),
            Command::Validate(args) => validate::run(args),
            Command::Status(args) => status::run(args),
            Command::Explain(args) => explain::run(args),
            Command::Graph(args) => graph::run(args),
            Command::Peek(args) => peek::run(args),
            Command::DataReport(args) => data_report::run(args),
            Command::Verify(args) => verify::run(args),
            Command::Gc(args) => gc::run(args, self.verbose > 0),
            Command::Kinds(args) => kinds::run(args),
            Command::Work(args) => work::run(args),
            Command::Fetch(args) => fetch::run(args),
            Command::Doctor(args) => doctor::run(args),
            Command::Generate(args) => generate::run(args),
            Command::Chat(args) => chat::run(args),
            Command::Export(args) => export::run(args),
            Command::Serve(args) => serve::run(args),
            Command::Report(args) => report::run(args),
            Command::Score(args) => score::run(args),
            Command::Bench(args) => bench::run(args),
            Command::Completions(args) => completions::run(args, &mut command()),
        }
    }
}

/// The command line, with a help that lists the commands in groups.
fn command() -> clap::Command {
    let command = Cli::command();
    let list = grouped(&command);
    let head = command.get_styles().get_header().to_owned();
    let options = format!("{head}Options:{head:#}\n{{options}}{{after-help}}");
    command.help_template(format!("{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{list}\n{options}"))
}

/// Every group with its commands and what they do.
fn grouped(command: &clap::Command) -> String {
    let style = command.get_styles();
    let (head, name) = (style.get_header(), style.get_literal());
    let width = GROUPS.iter().flat_map(|(_, names)| *names).map(|name| name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (group, commands) in GROUPS {
        let _ = writeln!(out, "\n{head}{group} commands:{head:#}");
        for listed in commands {
            let about = command.find_subcommand(listed).and_then(clap::Command::get_about);
            let about = about.map_or_else(|| "Print the help of a command".to_owned(), ToString::to_string);
            let _ = writeln!(out, "  {name}{listed:width$}{name:#}  {about}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_stands_in_one_group() {
        let mut listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        let mut command = Cli::command();
        command.build();
        let mut all: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        listed.sort_unstable();
        all.sort_unstable();
        assert_eq!(listed, all);
    }
}
