//! The metrics of writes that wait for their database.

use super::encode::{Family, Labels};
use super::{counter, gauge, seconds, table};
use crate::serve::Server;

/// Nothing where no cache writes behind.
pub(super) fn families(server: &Server) -> Vec<Family> {
    let Some(journal) = &server.journal else { return Vec::new() };
    let it = journal.behind.statistics();
    let disk = journal.disk_statistics();
    let failing = it.lanes.iter().filter(|lane| lane.failing.is_some()).count();
    let stopped = it.lanes.iter().filter(|lane| lane.stopped.is_some()).count();
    let outcome = |name: &str, count| (vec![("outcome", name.to_owned())], count);
    let state = |name: &str, count: usize| (vec![("state", name.to_owned())], count as f64);
    vec![
        gauge(table::JOURNAL_LAG_SECONDS, one(seconds(it.oldest_age))),
        gauge(table::JOURNAL_DEPTH_RECORDS, one(it.depth_records as f64)),
        gauge(table::JOURNAL_DEPTH_BYTES, one(it.depth_bytes as f64)),
        gauge(table::JOURNAL_DEAD_LETTERS, one(it.journal.dead_letters as f64)),
        gauge(table::JOURNAL_LANES, vec![state("failing", failing), state("stopped", stopped)]),
        gauge(table::JOURNAL_WRITABLE, one(f64::from(u8::from(it.journal.writable)))),
        gauge(table::JOURNAL_BYTES, one(it.journal.bytes as f64)),
        gauge(table::JOURNAL_BUDGET_BYTES, one(it.journal.bytes_max as f64)),
        counter(
            table::JOURNAL_WRITES,
            vec![
                outcome("accepted", it.accepted),
                outcome("refused", it.refused_full),
                outcome("applied", it.applied),
                outcome("coalesced", it.coalesced),
                outcome("buried", it.buried),
            ],
        ),
        counter(table::JOURNAL_ROWS_WRITTEN, one(it.written)),
        counter(table::JOURNAL_BATCHES, one(it.batches)),
        counter(table::JOURNAL_RETRIES, one(it.retries)),
        counter(table::JOURNAL_DOUBTS, one(it.doubts)),
        counter(table::JOURNAL_SYNCS, one(disk.commits)),
        counter(table::JOURNAL_DISK_FAILURES, one(disk.failures)),
    ]
}

fn one<T>(number: T) -> Vec<(Labels, T)> {
    vec![(Vec::new(), number)]
}
