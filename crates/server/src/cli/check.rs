//! `larder check`: what is wrong with a configuration.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Outcome, block_on, count, print, say};
use crate::config::{Diagnostics, Overrides, Settings};
use crate::serve::{self, connect};

/// Check a configuration file and name every mistake
///
/// Each mistake is named with file, line and column, the offending text and
/// what to do; so are environment variables and files that it names and that
/// are not there. Nothing is started and, without --connect, nothing is reached.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  larder check larder.toml
  larder check --connect larder.toml      also ask the database whether the queries work
  larder check --json larder.toml         for editors and pipelines

Exit status: 0 if the file can be served, 1 if not.
")]
pub(crate) struct CheckOptions {
    /// The configuration file
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Also connect to the databases, Redis and memcached, and check tables, queries and columns
    #[arg(long, visible_alias = "database-check")]
    connect: bool,

    /// Print the findings as a JSON array
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &CheckOptions) -> Outcome {
    let findings = findings(options)?;
    if options.json {
        let text = serde_json::to_string_pretty(&findings.0)?;
        print(format_args!("{text}\n"))?;
    } else if !findings.0.is_empty() {
        say(format_args!("{findings}\n"));
    }
    let errors = findings.errors().count();
    let warnings = findings.warnings().count();
    if errors > 0 {
        say(format_args!("{}: {}", options.file.display(), count(errors, "error")));
        return Err(Failure::Said);
    }
    if !options.json {
        let remark = match warnings {
            0 => String::new(),
            number => format!(", {}", count(number, "warning")),
        };
        print(format_args!("{}: no errors{remark}\n", options.file.display()))?;
    }
    Ok(())
}

fn findings(options: &CheckOptions) -> Result<Diagnostics, Failure> {
    let settings = match Settings::load(Some(&options.file), &Overrides::default()) {
        Ok(settings) => settings,
        Err(diagnostics) => return Ok(diagnostics),
    };
    let mut findings = Diagnostics(settings.warnings.clone());
    let missing = serve::check_surroundings(&settings);
    let is_complete = missing.is_empty();
    findings.0.extend(missing);
    let mut graph = serve::plan(&settings, &[]).dependencies.graph;
    if options.connect && is_complete {
        let (mistakes, of_all) = block_on(connect::check(&settings))?;
        findings.0.extend(mistakes);
        graph = of_all.or(graph);
    }
    findings.0.extend(graph.iter().flat_map(|graph| serve::cycles(&settings, graph)));
    findings.sort();
    Ok(findings)
}
