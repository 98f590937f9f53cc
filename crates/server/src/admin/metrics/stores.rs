//! The metrics of the stores below memory.

use larder::{BreakerState, StoreStatistics};

use super::encode::{Family, Labels};
use super::{counter, gauge, table};
use crate::admin::health::breaker_name;
use crate::serve::Server;

const STATES: [BreakerState; 3] =
    [BreakerState::Closed, BreakerState::HalfOpen, BreakerState::Open];

/// One store of one cache at the moment of asking.
struct Look {
    cache: String,
    store: StoreStatistics,
}

pub(super) fn families(server: &Server) -> Vec<Family> {
    let looks: Vec<_> = server
        .registry
        .served()
        .iter()
        .flat_map(|served| {
            let stores = served.cache.stores().into_iter();
            stores.map(|store| Look { cache: served.name().to_owned(), store })
        })
        .collect();
    if looks.is_empty() {
        return Vec::new();
    }
    let states = looks.iter().flat_map(|look| {
        STATES.map(|state| {
            let mut labels = labels(look);
            labels.push(("state", breaker_name(state).to_owned()));
            (labels, f64::from(u8::from(state == look.store.breaker)))
        })
    });
    vec![
        counter(table::STORE_HITS, each(&looks, |it| it.hits)),
        counter(table::STORE_MISSES, each(&looks, |it| it.misses)),
        counter(table::STORE_FILLS, each(&looks, |it| it.fills)),
        counter(table::STORE_FAILURES, each(&looks, |it| it.failures)),
        counter(table::STORE_UNDECODABLE, each(&looks, |it| it.undecodable)),
        counter(table::STORE_SUSPECTS, each(&looks, |it| it.suspects)),
        gauge(table::STORE_BREAKER_STATE, states.collect()),
        gauge(table::STORE_BEHIND, each(&looks, |it| f64::from(u8::from(it.is_behind)))),
    ]
}

/// The leases of the caches that ask for some.
pub(super) fn leases(server: &Server) -> Vec<Family> {
    let served = server.registry.served().iter();
    let looks: Vec<_> = served
        .filter_map(|served| Some((served.name().to_owned(), served.cache.leases()?)))
        .collect();
    if looks.is_empty() {
        return Vec::new();
    }
    let requests = looks.iter().flat_map(|(cache, leases)| {
        let outcomes = [
            ("won", leases.won),
            ("waited", leases.waited),
            ("skipped", leases.skipped),
            ("failed", leases.failures),
        ];
        outcomes.map(|(outcome, count)| {
            (vec![("cache", cache.clone()), ("outcome", outcome.to_owned())], count)
        })
    });
    let states = looks.iter().flat_map(|(cache, leases)| {
        STATES.map(|state| {
            let labels = vec![("cache", cache.clone()), ("state", breaker_name(state).to_owned())];
            (labels, f64::from(u8::from(state == leases.breaker)))
        })
    });
    vec![
        counter(table::LEASE_REQUESTS, requests.collect()),
        gauge(table::LEASE_BREAKER_STATE, states.collect()),
    ]
}

fn labels(look: &Look) -> Labels {
    vec![("cache", look.cache.clone()), ("store", look.store.name.clone())]
}

/// One sample for each store of each cache.
fn each<T>(looks: &[Look], of: impl Fn(&StoreStatistics) -> T) -> Vec<(Labels, T)> {
    looks.iter().map(|look| (labels(look), of(&look.store))).collect()
}
