//! The commands of the program.

mod check;
mod completions;
mod config;
mod dead_letters;
mod doctor;
pub mod explain;
pub mod generate;
mod graph;
mod options;
mod remote;
mod serve;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{CommandFactory, Parser, Subcommand};

use crate::build_info::VERSION;
use crate::config::Diagnostics;

pub use options::ServeOptions;

/// A stampede-proof cache of a database for any Redis client.
///
/// Point it at a database and every table answers at once:
///
///   larder serve --database postgres://user@host/shop
///
///   redis-cli -p 6380 GET product:42
#[derive(Parser, Debug)]
#[command(
    name = "larder",
    version = VERSION,
    styles = STYLES,
    verbatim_doc_comment,
    disable_help_subcommand = true,
    args_override_self = true,
    after_help = "Try it without a database of your own: larder serve --demo"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Serve(Box<ServeOptions>),
    Check(check::CheckOptions),
    Doctor(doctor::DoctorOptions),
    Explain(explain::ExplainOptions),
    Graph(graph::GraphOptions),
    DeadLetters(dead_letters::DeadLettersOptions),
    Config(config::ConfigOptions),
    Completions(completions::CompletionsOptions),
    #[command(hide = true)]
    Generate(generate::GenerateOptions),
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Why a command failed: already said, or to be said.
pub(crate) enum Failure {
    /// A paragraph for the user.
    Message(String),
    /// What is wrong with a configuration.
    Diagnostics(Diagnostics),
    /// Everything was said.
    Said,
}

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Message(error.to_string())
    }
}

pub(crate) type Outcome = Result<(), Failure>;

/// Runs the command that the arguments name.
#[must_use]
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(options) => serve::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Explain(options) => explain::run(&options),
        Command::Graph(options) => graph::run(&options),
        Command::DeadLetters(options) => dead_letters::run(&options),
        Command::Config(options) => config::run(&options),
        Command::Completions(options) => completions::run(&options),
        Command::Generate(options) => generate::run(&options),
    };
    match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Said) => {}
        Err(Failure::Message(message)) => say(format_args!("larder: {message}")),
        Err(Failure::Diagnostics(diagnostics)) => {
            say(&diagnostics);
            // What a flag or the machine got wrong stands in no file.
            let in_file = diagnostics.errors().filter(|error| error.file.is_some()).count();
            if in_file > 0 {
                say(format_args!("\nlarder: the configuration has {}", count(in_file, "error")));
            }
        }
    }
    ExitCode::FAILURE
}

/// The command line as a whole, for completions and the reference.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Writes to standard output. A reader that has gone away, as `head` does, is
/// no error.
pub(crate) fn print(text: impl Display) -> Outcome {
    let mut output = io::stdout().lock();
    match write!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Message(format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error, for people.
pub(crate) fn say(text: impl Display) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether standard error is a terminal, so that colour is welcome.
pub(crate) fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// `1 error`, `2 errors`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Runs a future to its end on a runtime of its own.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Message(format!("the runtime does not start: {error}")))?;
    Ok(runtime.block_on(future))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_themselves() {
        command().debug_assert();
    }
}
