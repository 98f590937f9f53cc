//! What the tests share.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_audit::{AuditBuffer, AuditOptions};
use larder_core::{Clock, DynOrigin, Key, MachineClock, MachineTime};
use larder_journal::{DiskJournal, JournalOptions};
use serde_json::Value;

pub(crate) const STREAM: &str = "payment";

/// `./test --full` asks for the long form.
pub(crate) fn is_full() -> bool {
    std::env::var_os("LARDER_FULL").is_some()
}

/// A journal with one lane.
pub(crate) async fn journal(directory: &Path) -> DiskJournal {
    let mut options = JournalOptions::new(directory);
    options.lanes = 1;
    options.segment_bytes = 64 << 10;
    DiskJournal::open(options).await.expect("the journal opens")
}

/// A buffer with one stream, over a journal in this directory.
pub(crate) async fn buffer(
    directory: &Path,
    origin: Arc<dyn DynOrigin<Key, Bytes>>,
    options: AuditOptions,
) -> AuditBuffer {
    let journal = Arc::new(journal(directory).await);
    let streams = [(STREAM.to_owned(), origin)];
    let opened = AuditBuffer::open(journal, streams, options, Clock::monotonic()).await;
    opened.expect("it opens")
}

/// A wall clock that shows this.
pub(crate) fn wall(now: impl Fn() -> Duration + Send + Sync + 'static) -> MachineClock {
    MachineClock::from_fn(move || MachineTime { boot: None, since_boot: now(), since_1970: now() })
}

/// The names of the files in a directory, oldest first.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let files = std::fs::read_dir(directory).expect("the directory is there");
    let names = files.map(|file| file.expect("a file").file_name());
    let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    names.retain(|name| name.ends_with(".jsonl"));
    names.sort();
    names
}

/// The keys and records of all files in a directory, in their order, as somebody
/// reads them who knows only that each line is JSON.
pub(crate) fn records(directory: &Path) -> Vec<(String, Value)> {
    let read = |name: &String| std::fs::read(directory.join(name)).expect("it can be read");
    names(directory).iter().map(read).flat_map(|bytes| records_of(&bytes)).collect()
}

/// The keys and records of one file.
pub(crate) fn records_of(bytes: &[u8]) -> Vec<(String, Value)> {
    let text = std::str::from_utf8(bytes).expect("JSON is UTF-8");
    assert!(text.ends_with('\n'), "the last line is whole");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let record = |line: Value| {
        let key = line.get("key")?.as_str()?.to_owned();
        Some((key, line.get("record")?.clone()))
    };
    lines.filter_map(record).collect()
}
