//! Every metric there is: the table from which the page and its reference are
//! made.

use std::fmt::Write;

/// What a metric is called, what it counts and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Metric {
    /// With its unit, without `_total`.
    pub(super) name: &'static str,
    /// One sentence, without its full stop.
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    /// The names of its labels, in order.
    pub(super) labels: &'static [&'static str],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bounds.
    Histogram,
}

macro_rules! metrics {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*], $help:literal;)*) => {
        $(pub(super) const $id: Metric = Metric {
            name: $name,
            help: $help,
            kind: Kind::$kind,
            labels: &[$($label),*],
        };)*

        /// Every metric, in the order of the page.
        pub(super) const METRICS: &[Metric] = &[$($id),*];
    };
}

metrics! {
    BUILD_INFO: Gauge "larder_build_info" ["version"], "1, with the version as a label";
    UPTIME_SECONDS: Gauge "larder_uptime_seconds" [], "Time since the start";
    DRAINING: Gauge "larder_draining" [], "1 while the server stops";
    CONFIG_RELOADS: Counter "larder_config_reloads" [],
        "Times the configuration was read again and applied";
    CONFIG_RELOAD_FAILURES: Counter "larder_config_reload_failures" [],
        "Times the configuration was read again and refused";
    MEMORY_BUDGET_BYTES: Gauge "larder_memory_budget_bytes" [],
        "What all caches and plain keys together may take";
    PROCESS_ALLOCATED_BYTES: Gauge "larder_process_allocated_bytes" [],
        "Memory in use by the program";
    PROCESS_RESIDENT_BYTES: Gauge "larder_process_resident_bytes" [], "Memory held by the program";
    CONNECTIONS: Gauge "larder_connections" [], "Redis clients connected now";
    THREADS_IN_USE: Gauge "larder_threads_in_use" [],
        "Threads that answer Redis clients at present";
    CONNECTIONS_ACCEPTED: Counter "larder_connections_accepted" [], "Redis clients accepted";
    CONNECTIONS_REJECTED: Counter "larder_connections_rejected" [],
        "Redis clients turned away because the server was full";
    CONNECTIONS_TIMED_OUT: Counter "larder_connections_timed_out" [],
        "Redis clients disconnected because they idled or stalled";
    COMMANDS: Counter "larder_commands" [], "Commands answered, failed ones included";
    COMMAND_CALLS: Counter "larder_command_calls" ["command", "outcome"],
        "Commands by name and outcome";
    PROTOCOL_ERRORS: Counter "larder_protocol_errors" [],
        "Redis clients disconnected because what they sent was no command";
    RECEIVED_BYTES: Counter "larder_received_bytes" [], "Bytes read from Redis clients";
    SENT_BYTES: Counter "larder_sent_bytes" [], "Bytes written to Redis clients";
    EVENTS: Counter "larder_events" ["outcome"],
        "Events by what became of them: applied, ignored, repeated, refused or failed";
    SCHEDULE_RUNS: Counter "larder_schedule_runs" ["outcome"],
        "Due times of schedules: run on time or late, run elsewhere, or failed and tried again";
    PLAIN_KEYS: Gauge "larder_plain_keys" [], "Keys of no cache";
    PLAIN_KEYS_BYTES: Gauge "larder_plain_keys_bytes" [], "What they take";
    PLAIN_KEYS_BUDGET_BYTES: Gauge "larder_plain_keys_budget_bytes" [], "What they may take";
    PLAIN_KEYS_READS: Counter "larder_plain_keys_reads" ["outcome"], "Reads of keys of no cache";
    PLAIN_KEYS_REMOVED: Counter "larder_plain_keys_removed" ["cause"],
        "Keys of no cache that left by themselves";
    JOURNAL_LAG_SECONDS: Gauge "larder_journal_lag_seconds" [],
        "The age of the oldest write that waits for its database";
    JOURNAL_DEPTH_RECORDS: Gauge "larder_journal_depth_records" [], "Writes that wait";
    JOURNAL_DEPTH_BYTES: Gauge "larder_journal_depth_bytes" [],
        "Bytes of keys and values that wait";
    JOURNAL_DEAD_LETTERS: Gauge "larder_journal_dead_letters" [],
        "Writes that the database refused, until they are replayed or dropped";
    JOURNAL_LANES: Gauge "larder_journal_lanes" ["state"],
        "Lanes that are failing, and tried again, or have stopped for good";
    JOURNAL_WRITABLE: Gauge "larder_journal_writable" [], "1 while the journal takes writes";
    JOURNAL_BYTES: Gauge "larder_journal_bytes" [], "What waits and dead letters take";
    JOURNAL_BUDGET_BYTES: Gauge "larder_journal_budget_bytes" [], "What they may take";
    JOURNAL_WRITES: Counter "larder_journal_writes" ["outcome"],
        "Writes: accepted, refused for want of room, applied, of these coalesced, or buried";
    JOURNAL_ROWS_WRITTEN: Counter "larder_journal_rows_written" [],
        "Writes that the database was sent and has committed";
    JOURNAL_BATCHES: Counter "larder_journal_batches" [], "Transactions in which they were";
    JOURNAL_RETRIES: Counter "larder_journal_retries" [],
        "Transactions that failed and were or will be tried again";
    JOURNAL_DOUBTS: Counter "larder_journal_doubts" [],
        "Transactions of which it was unknown whether they had happened";
    JOURNAL_SYNCS: Counter "larder_journal_syncs" [], "Times the journal was synced to its disk";
    JOURNAL_DISK_FAILURES: Counter "larder_journal_disk_failures" [],
        "Writes and syncs that the journal's disk refused";
    FRONT_TRACKING: Gauge "larder_front_tracking" ["state"],
        "1 for whether Redis tells what changes: tracking, lost or refused";
    FRONT_SERVERS: Gauge "larder_front_servers" [],
        "Redis servers that are listened to: one, or the primaries of a cluster";
    FRONT_REACHABLE: Gauge "larder_front_reachable" [],
        "1 if the last connection to each of them could be opened";
    FRONT_READS: Counter "larder_front_reads" ["outcome"],
        "Reads of strings: answered from memory, or by Redis";
    FRONT_PASSED: Counter "larder_front_passed" [], "Commands that went to Redis";
    FRONT_FILLS: Counter "larder_front_fills" ["outcome"],
        "Values that were read: kept, or discarded because a change crossed them";
    FRONT_INVALIDATIONS: Counter "larder_front_invalidations" [],
        "Keys that Redis said have changed";
    FRONT_FLUSHES: Counter "larder_front_flushes" [],
        "Times Redis said that everything has changed";
    FRONT_TRACKING_LOSSES: Counter "larder_front_tracking_losses" [],
        "Times tracking was lost, and what was in memory with it";
    FRONT_CONNECTIONS: Gauge "larder_front_connections" [], "Connections to Redis";
    FRONT_CONNECTS: Counter "larder_front_connects" ["outcome"],
        "Attempts to connect to Redis";
    FRONT_DISCONNECTS: Counter "larder_front_disconnects" [],
        "Connections to Redis that were lost while they were in use";
    FRONT_HOLD_UPS: Counter "larder_front_hold_ups" [],
        "Times a client that was slow to read held up others of its thread";
    FRONT_GIVE_UPS: Counter "larder_front_give_ups" [],
        "Times such a client did so for too long: what came for it was gathered in memory";
    FRONT_REDIRECTIONS: Counter "larder_front_redirections" [],
        "Commands that a server of the cluster sent on to another";
    FRONT_MOVED_SLOTS: Counter "larder_front_moved_slots" [],
        "Times slots of the cluster were seen to have another owner";
    FRONT_LATENCY_SECONDS: Histogram "larder_front_latency_seconds" [],
        "How long Redis took, of one reply of those that arrived together";
    CACHE_REQUESTS: Counter "larder_cache_requests" ["cache"], "Reads, however they ended";
    CACHE_HITS: Counter "larder_cache_hits" ["cache", "freshness"], "Reads answered from memory";
    CACHE_MISSES: Counter "larder_cache_misses" ["cache", "answered_by"],
        "Reads that memory could not answer, by what answered them";
    CACHE_STALE_SERVED: Counter "larder_cache_stale_served" ["cache", "reason"],
        "Reads answered stale, by reason";
    CACHE_STALE_AGE_MAX_SECONDS: Gauge "larder_cache_stale_age_max_seconds" ["cache"],
        "The oldest answer served stale since the start";
    CACHE_LOADS: Counter "larder_cache_loads" ["cache"],
        "Loads from the origin that finished, each key of a batch counted";
    CACHE_LOAD_ERRORS: Counter "larder_cache_load_errors" ["cache", "cause"],
        "Loads that failed, by cause";
    CACHE_LOADS_IN_FLIGHT: Gauge "larder_cache_loads_in_flight" ["cache"], "Loads that run now";
    CACHE_REFRESHES: Counter "larder_cache_refreshes" ["cache", "outcome"],
        "Refreshes in the background, by what became of them";
    CACHE_FILLS_FENCED: Counter "larder_cache_fills_fenced" ["cache"],
        "Loads whose answer was not kept because an invalidation came in between";
    CACHE_INVALIDATIONS: Counter "larder_cache_invalidations" ["cache", "kind"],
        "Invalidations, by what they named and how";
    CACHE_LOAD_DURATION_SECONDS: Histogram "larder_cache_load_duration_seconds" ["cache"],
        "How long loads took";
    CACHE_HIT_DURATION_SECONDS: Gauge "larder_cache_hit_duration_seconds" ["cache", "quantile"],
        "How long hits in memory took, one in 1024 measured";
    CACHE_ENTRIES: Gauge "larder_cache_entries" ["cache"], "Entries in memory";
    CACHE_MEMORY_BYTES: Gauge "larder_cache_memory_bytes" ["cache"],
        "What the entries take, keys and bookkeeping included";
    CACHE_MEMORY_BUDGET_BYTES: Gauge "larder_cache_memory_budget_bytes" ["cache"],
        "What the entries may take";
    CACHE_EVICTIONS: Counter "larder_cache_evictions" ["cache", "cause"],
        "Entries that left memory, by cause";
    CACHE_ENTRIES_REJECTED: Counter "larder_cache_entries_rejected" ["cache"],
        "Entries that were not kept because they are too large for the budget";
    STORE_HITS: Counter "larder_store_hits" ["cache", "store"],
        "Keys that a store below memory had";
    STORE_MISSES: Counter "larder_store_misses" ["cache", "store"],
        "Keys that a store below memory did not have";
    STORE_FILLS: Counter "larder_store_fills" ["cache", "store"],
        "Entries put into a store below memory";
    STORE_FAILURES: Counter "larder_store_failures" ["cache", "store"],
        "Calls of a store below memory that failed or took too long";
    STORE_UNDECODABLE: Counter "larder_store_undecodable" ["cache", "store"],
        "Entries of a store below memory that could not be read";
    STORE_SUSPECTS: Counter "larder_store_suspects" ["cache", "store"],
        "Entries of a store below memory that were loaded anew because they may have been invalidated unheard";
    STORE_BREAKER_STATE: Gauge "larder_store_breaker_state" ["cache", "store", "state"],
        "1 for the state the breaker of a store is in: while it is open the store is not asked";
    STORE_BEHIND: Gauge "larder_store_behind" ["cache", "store"],
        "1 while invalidations wait to be told to a store: what they touch is hidden meanwhile";
    LEASE_REQUESTS: Counter "larder_lease_requests" ["cache", "outcome"],
        "Leases asked for before a load: won, waited for another server, skipped or failed";
    LEASE_BREAKER_STATE: Gauge "larder_lease_breaker_state" ["cache", "state"],
        "1 for the state of the breaker: while it is open each server loads for itself";
    FLEET_HEARD: Counter "larder_fleet_heard" [],
        "Changes heard on the bus, those of this server included";
    FLEET_ANNOUNCED: Counter "larder_fleet_announced" [],
        "Changes announced on the bus, each time it was";
    FLEET_FAILED: Counter "larder_fleet_failed" [], "Attempts to announce a change that failed";
    FLEET_WAITING: Gauge "larder_fleet_waiting" [], "Changes that wait to be announced";
    FLEET_GAPS: Counter "larder_fleet_gaps" [],
        "Times that a change was missed, so that everything in memory was in doubt";
    FLEET_RECONNECTIONS: Counter "larder_fleet_reconnections" [],
        "Times that the connection to the bus was made anew";
    FLEET_LAG_SECONDS: Gauge "larder_fleet_lag_seconds" [],
        "How long the last sign of life of the bus had been on its way at most";
    FLEET_SILENCE_SECONDS: Gauge "larder_fleet_silence_seconds" [],
        "For how long the bus has not been heard: past the staleness bound memory is not trusted";
    ORIGIN_BREAKER_STATE: Gauge "larder_origin_breaker_state" ["origin", "state"],
        "1 for the state the breaker is in";
    ORIGIN_LOADS_RUNNING: Gauge "larder_origin_loads_running" ["origin"],
        "Loads that hold a place under the origin's budget";
    ORIGIN_CONNECTIONS: Gauge "larder_origin_connections" ["origin", "state"],
        "Connections to the database";
    ORIGIN_LOADS_WAITING: Gauge "larder_origin_loads_waiting" ["origin"],
        "Loads that wait for a connection";
    ORIGIN_CONNECTION_TIMEOUTS: Counter "larder_origin_connection_timeouts" ["origin"],
        "Loads refused because no connection became free in time";
}

/// The reference of the metrics as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(INTRODUCTION);
    for (heading, prefix) in SECTIONS {
        // Writing to a string does not fail.
        let _ = write!(text, "\n## {heading}\n\n| metric | type | labels | what it is |\n");
        text.push_str("|---|---|---|---|\n");
        for metric in METRICS.iter().filter(|metric| section(metric) == prefix) {
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let (name, kind) = (metric.full_name(), metric.kind.name());
            let _ =
                writeln!(text, "| `{name}` | {kind} | {} | {} |", labels.join(", "), metric.help);
        }
    }
    text
}

const INTRODUCTION: &str = "\
# Metrics reference

This page is generated from the program. `GET /metrics` of the administration answers with all of
them: in the text format of Prometheus, or as OpenMetrics if the client asks for that with `Accept`.
Every number is read where it is counted, when it is asked for; those of the process are left out
where the system does not tell them.
";

const SECTIONS: [(&str, &str); 7] = [
    ("The process and the Redis door", ""),
    ("Plain keys", "larder_plain_"),
    ("Caches", "larder_cache_"),
    ("Stores below memory: disk, Redis, memcached", "larder_store_"),
    ("Leases: of all servers one loads a key", "larder_lease_"),
    ("The bus between servers", "larder_fleet_"),
    ("Origins", "larder_origin_"),
];

/// The prefix of the section that a metric belongs to.
fn section(metric: &Metric) -> &'static str {
    let prefixes = SECTIONS.iter().rev().map(|(_, prefix)| *prefix);
    prefixes.into_iter().find(|prefix| metric.name.starts_with(prefix)).unwrap_or_default()
}

impl Metric {
    /// The name of its samples; a histogram adds `_bucket`, `_sum` and `_count`.
    pub(super) fn full_name(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.name),
            Kind::Gauge | Kind::Histogram => self.name.to_owned(),
        }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_need_no_escape() {
        for metric in METRICS {
            assert!(!metric.name.ends_with("_total"), "{metric:?}");
            assert!(!metric.help.contains(['"', '\\', '\n', '|']), "{metric:?}");
            assert_eq!(METRICS.iter().filter(|other| other.name == metric.name).count(), 1);
        }
    }
}
