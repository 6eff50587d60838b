//! `pol`: train a model, keep a proof of the training, verify it.

mod args;
mod backend;
mod commands;
mod error;
mod output;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use error::Exit;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Train(args) => commands::train::run(&args),
        Command::Verify(args) => commands::verify::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Data(args) => commands::data::run(&args.command),
        Command::Completions { shell } => commands::completions::run(shell),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::error(&error);
            Exit::from(&error).into()
        }
    }
}
