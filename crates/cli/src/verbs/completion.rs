//! `gureum completion`: scripts for shells.

use clap::{Args as ClapArgs, Command};
use clap_complete::Shell;

use crate::{failure::Failure, output::Output};

/// Print the completion script of a shell
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum completion bash > ~/.local/share/bash-completion/completions/gureum
  gureum completion zsh > ~/.zfunc/_gureum
  gureum completion fish > ~/.config/fish/completions/gureum.fish")]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &Args, mut command: Command, out: &Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "gureum", &mut script);
    out.write_bytes(&script)
}
