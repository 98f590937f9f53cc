//! `larder completions`: what a shell needs to complete commands.

use clap::Args;
use clap_complete::Shell;

use super::{Outcome, command, print};

/// Print the completions for a shell
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  larder completions bash > /etc/bash_completion.d/larder
  larder completions zsh > ~/.zfunc/_larder
  larder completions fish > ~/.config/fish/completions/larder.fish
")]
pub(crate) struct CompletionsOptions {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn run(options: &CompletionsOptions) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command(), "larder", &mut script);
    print(String::from_utf8_lossy(&script))
}
