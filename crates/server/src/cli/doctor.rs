//! `larder doctor`: what is wrong with the tiers, and what to do.

use clap::Args;

use super::options::SourceOptions;
use super::{Failure, Outcome, block_on, print};
use crate::config::{Overrides, Settings};
use crate::doctor;

/// Look at each tier and say what is wrong and what to do
///
/// Connects to the databases, the disk tier's directory, Redis and memcached as
/// a server with this configuration would, and looks whether they can be
/// reached, which version they are, which rights are missing, whether clocks run
/// at the same rate, and whether a message on the bus comes back. Caches are
/// neither read nor changed, and a server that runs is not disturbed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  larder doctor --config larder.toml
  larder doctor --database postgres://ann@db/shop
  larder doctor --config larder.toml --json | jq '.findings[] | select(.level != \"fine\")'

Exit status: 0 if everything works, warnings included; 1 if anything does not.
")]
pub(crate) struct DoctorOptions {
    #[command(flatten)]
    source: SourceOptions,

    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &DoctorOptions) -> Outcome {
    let overrides =
        Overrides { databases: options.source.database.clone(), ..Overrides::default() };
    let settings = Settings::load(options.source.config.as_deref(), &overrides);
    let report = match settings {
        Ok(settings) => block_on(doctor::examine(&settings))?,
        Err(diagnostics) if options.json => doctor::Report::of_mistakes(diagnostics),
        Err(diagnostics) => return Err(Failure::Diagnostics(diagnostics)),
    };
    if options.json {
        let text = serde_json::to_string_pretty(&report)?;
        print(format_args!("{text}\n"))?;
    } else {
        print(&report)?;
    }
    if report.is_healthy { Ok(()) } else { Err(Failure::Said) }
}
