//! The metrics of the bus between servers.

use super::encode::{Family, Labels};
use super::{counter, gauge, seconds, table};
use crate::serve::Server;

/// Nothing where this server shares no tier with others.
pub(super) fn families(server: &Server) -> Vec<Family> {
    let Some(shared) = &server.shared_tiers else { return Vec::new() };
    let bus = shared.fleet.statistics();
    vec![
        counter(table::FLEET_HEARD, one(bus.heard)),
        counter(table::FLEET_ANNOUNCED, one(bus.announced)),
        counter(table::FLEET_FAILED, one(bus.failed)),
        gauge(table::FLEET_WAITING, one(bus.waiting as f64)),
        counter(table::FLEET_GAPS, one(bus.gaps)),
        counter(table::FLEET_RECONNECTIONS, one(bus.reconnections)),
        gauge(
            table::FLEET_LAG_SECONDS,
            bus.lag.into_iter().flat_map(|it| one(seconds(it))).collect(),
        ),
        gauge(
            table::FLEET_SILENCE_SECONDS,
            bus.silence.into_iter().flat_map(|it| one(seconds(it))).collect(),
        ),
    ]
}

fn one<T>(number: T) -> Vec<(Labels, T)> {
    vec![(Vec::new(), number)]
}
