//! `pol`: train a model, keep a proof of the training, verify it.

mod args;
mod backend;
mod child;
mod commands;
mod error;
mod output;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use error::{CliError, Exit};

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let result = backend::in_pool(command.threads(), || run(&command)).flatten();
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::error(&error);
            Exit::from(&error).into()
        }
    }
}

fn run(command: &Command) -> Result<Exit, CliError> {
    match command {
        Command::Train(args) => commands::train::run(args),
        Command::Verify(args) => commands::verify::run(args),
        Command::Keygen(args) => commands::keys::generate(args),
        Command::Sign(args) => commands::keys::sign(args),
        Command::Timestamp(args) => commands::timestamp::run(args),
        Command::Commit(args) => commands::audit::commit(args),
        Command::Challenge(args) => commands::audit::challenge(args),
        Command::Open(args) => commands::audit::open(args),
        Command::AuditPlan(args) => commands::audit::plan(args),
        Command::Attack(args) => commands::attack::run(args),
        Command::Report(args) => commands::report::run(args),
        Command::Measure(args) => commands::measure::run(args),
        Command::Calibrate(args) => commands::calibrate::run(args),
        Command::Verdict(args) => commands::verdict::run(args),
        Command::Pack(args) => commands::pack::pack(args),
        Command::Unpack(args) => commands::pack::unpack(args),
        Command::Gc(args) => commands::gc::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Doctor(args) => commands::doctor::run(args),
        Command::Bench(args) => commands::bench::run(args),
        Command::Data(args) => commands::data::run(&args.command),
        Command::Completions { shell } => commands::completions::run(*shell),
    }
}
