//! The metrics, as text that Prometheus reads (O1, O4).
//!
//! Every number is read where it is counted, when it is asked for.

mod caches;
mod encode;
mod fleet;
mod journal;
mod server;
mod stores;
mod table;

use std::fmt;
use std::time::Duration;

use encode::{Family, Labels, Sample};
use table::Metric;

use crate::serve::Server;

pub(super) use encode::Format;
pub use table::reference;

/// Every metric of the server.
pub(super) fn text(server: &Server, format: Format) -> Result<String, fmt::Error> {
    let mut families = server::families(server);
    families.extend(caches::families(server));
    families.extend(stores::families(server));
    families.extend(stores::leases(server));
    families.extend(fleet::families(server));
    families.extend(journal::families(server));
    encode::encode(families, format)
}

fn counter(metric: Metric, samples: Vec<(Labels, u64)>) -> Family {
    family(metric, samples.into_iter().map(|(labels, count)| (labels, Sample::Count(count))))
}

fn gauge(metric: Metric, samples: Vec<(Labels, f64)>) -> Family {
    family(metric, samples.into_iter().map(|(labels, number)| (labels, Sample::Number(number))))
}

fn family(metric: Metric, samples: impl Iterator<Item = (Labels, Sample)>) -> Family {
    Family { metric, samples: samples.collect() }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
