//! `llavm completions`: the script that lets a shell complete the command line.

use crate::ui::failure::Outcome;
use crate::ui::output::print_data;
use clap_complete::Shell;

/// Print the completion script of a shell
#[derive(clap::Args)]
#[command(after_help = "Example: llavm completions bash > ~/.local/share/bash-completion/completions/llavm")]
pub struct Args {
    /// The shell
    shell: Shell,
}

pub fn run(args: &Args, command: &mut clap::Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "llavm", &mut script);
    print_data(&String::from_utf8_lossy(&script))?;
    Ok(())
}
