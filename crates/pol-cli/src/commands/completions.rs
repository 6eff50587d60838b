//! `pol completions`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::{CliError, Exit};

pub(crate) fn run(shell: Shell) -> Result<Exit, CliError> {
    clap_complete::generate(shell, &mut Cli::command(), "pol", &mut std::io::stdout());
    Ok(Exit::Done)
}
