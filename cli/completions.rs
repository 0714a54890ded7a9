//! `llavm completions`: the script that lets a shell complete the command line.

use crate::failure::Outcome;
use crate::output::print;
use clap::CommandFactory;
use clap_complete::Shell;

/// Print the completion script of a shell
#[derive(clap::Args)]
#[command(after_help = "Example: llavm completions bash > ~/.local/share/bash-completion/completions/llavm")]
pub struct Args {
    /// The shell
    shell: Shell,
}

pub fn run(args: &Args) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "llavm", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(())
}
