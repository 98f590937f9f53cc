//! The metrics, in the text format that Prometheus reads (O1, O4).
//!
//! Every number is read where it is counted, when it is asked for.

mod caches;
mod encode;
mod server;

use std::fmt;
use std::time::Duration;

use encode::{Family, Kind, Labels, Sample};

use crate::serve::Server;

/// What the text is, for the `Content-Type` header.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every metric of the server.
pub(super) fn text(server: &Server) -> Result<String, fmt::Error> {
    let mut families = server::families(server);
    families.extend(caches::families(server));
    encode::encode(families)
}

fn counter(name: &'static str, help: &'static str, samples: Vec<(Labels, u64)>) -> Family {
    family(name, help, Kind::Counter, samples.into_iter().map(|(l, n)| (l, Sample::Count(n))))
}

fn gauge(name: &'static str, help: &'static str, samples: Vec<(Labels, f64)>) -> Family {
    family(name, help, Kind::Gauge, samples.into_iter().map(|(l, n)| (l, Sample::Number(n))))
}

fn family(
    name: &'static str,
    help: &'static str,
    kind: Kind,
    samples: impl Iterator<Item = (Labels, Sample)>,
) -> Family {
    Family { name, help, kind, samples: samples.collect() }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
