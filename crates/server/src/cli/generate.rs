//! `larder generate`: the files of the project that are made from the program.
//! Hidden, because it is of use to nobody else.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;

use super::{Failure, Outcome, command, say};
use crate::{admin, config, resp};

/// Write the generated references and the schema into the project
#[derive(Args, Clone, Debug)]
pub(crate) struct GenerateOptions {
    /// The root of the project
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(crate) fn run(options: &GenerateOptions) -> Outcome {
    for (name, text) in files() {
        let path = options.directory.join(name);
        let refuse =
            |error| Failure::Message(format!("{} cannot be written: {error}", path.display()));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(refuse)?;
        }
        std::fs::write(&path, text).map_err(refuse)?;
        say(format_args!("wrote {}", path.display()));
    }
    Ok(())
}

/// Every generated file: its path below the root of the project, and its text.
#[must_use]
pub fn files() -> Vec<(&'static str, String)> {
    vec![
        ("docs/larder.schema.json", config::schema_text()),
        ("docs/reference/config.md", config::reference_text()),
        ("docs/reference/commands.md", resp::reference()),
        ("docs/reference/metrics.md", admin::metrics_reference()),
        ("docs/reference/cli.md", command_line_text()),
        ("examples/larder.toml", config::EXAMPLE.to_owned()),
    ]
}

fn command_line_text() -> String {
    let mut text = String::from(
        "# Command line reference\n\nThis page is generated from the program: `larder --help` and \
         `larder COMMAND --help` print the same.\n",
    );
    let mut root = command().term_width(100);
    root.build();
    describe(&mut text, &mut root, "larder");
    text
}

fn describe(text: &mut String, command: &mut clap::Command, name: &str) {
    let help = command.render_long_help().to_string();
    let lines: Vec<_> = help.trim_end().lines().map(str::trim_end).collect();
    let _ = write!(text, "\n## `{name}`\n\n```text\n{}\n```\n", lines.join("\n"));
    for below in command.get_subcommands_mut().filter(|below| !below.is_hide_set()) {
        let name = format!("{name} {}", below.get_name());
        describe(text, below, &name);
    }
}
