//! Rules for `[journal]`, and for caches that write behind.

use larder_core::Class;

use super::Checker;
use crate::config::{ByteSize, CacheOptions};

pub(super) fn check(checker: &mut Checker<'_>) {
    let config = &checker.parsed.config;
    let journal = &config.journal;
    if journal.directory.as_deref() == Some("") {
        checker.error(
            &["journal", "directory"],
            "the directory has no name",
            "name one, such as \"/var/lib/larder/journal\"",
        );
    }
    if journal.directory.is_some() && journal.directory == config.disk.directory {
        checker.error(
            &["journal", "directory"],
            "the journal and the disk tier cannot share a directory",
            "give each of them one of its own",
        );
    }
    let counts = [
        ("lanes", usize::from(journal.lanes)),
        ("batch_records", journal.batch_records),
        ("queue_records_max", journal.queue_records_max),
        ("retries_per_second", journal.retries_per_second as usize),
    ];
    for (option, count) in counts {
        if count == 0 {
            checker.error(&["journal", option], format!("`{option}` is 0"), "give it 1 or more");
        }
    }
    if journal.lanes > LANES_MAX {
        let message = format!("`lanes` cannot be {}: it is from 1 to {LANES_MAX}", journal.lanes);
        checker.error(&["journal", "lanes"], message, "16 is usual");
    }
    let sizes = [
        ("budget", journal.budget, 16 << 20),
        ("batch_bytes_max", journal.batch_bytes_max, 1),
        ("queue_bytes_max", journal.queue_bytes_max, 1 << 10),
    ];
    for (option, size, least) in sizes {
        if size.0 < least {
            checker.error(
                &["journal", option],
                format!("{size} is too little for a journal"),
                format!("give it at least {}", ByteSize(least)),
            );
        }
    }
    if journal.retry_pause.0.is_zero() || journal.retry_pause.0 > journal.retry_pause_max.0 {
        checker.error(
            &["journal", "retry_pause"],
            "the pauses between retries contradict each other",
            "retry_pause is more than 0 and at most retry_pause_max",
        );
    }
    if journal.attempt_timeout.0.is_zero() {
        let remedy = "give a database the time that a transaction takes, and more";
        checker.error(&["journal", "attempt_timeout"], "`attempt_timeout` is 0", remedy);
    }
    if !config.writes_behind() && !journal.is_default() && journal.directory.is_none() {
        checker.warning(
            &["journal"],
            "no cache writes behind, so there is no journal",
            "say write.mode = \"behind\" in a [caches.NAME], or leave [journal] out",
        );
    }
}

/// A cache whose writes wait.
pub(super) fn cache(checker: &mut Checker<'_>, name: &str, cache: &CacheOptions) {
    let Some(write) = &cache.write else { return };
    if !write.is_behind() {
        if write.only_writer {
            checker.error(
                &["caches", name, "write", "only_writer"],
                "only a cache that writes behind has to be the only writer",
                "leave it out, or say mode = \"behind\"",
            );
        }
        return;
    }
    let config = &checker.parsed.config;
    let mode = ["caches", name, "write", "mode"];
    let class = cache.policy().over(&config.defaults).class.map(|class| class.0);
    let class = class.unwrap_or(Class::Public);
    let has_fleet = !config.redis.is_default();
    if config.journal_directory().is_none() {
        checker.error(
            &mode,
            "there is no journal in which writes could wait",
            "name its directory as [journal] directory, such as \"/var/lib/larder/journal\"",
        );
    }
    if !class.may_leave_process() {
        checker.error(
            &mode,
            format!("data of the class {class} cannot wait in a journal on the disk"),
            "leave mode out, so that it is written through",
        );
    }
    if has_fleet && !write.only_writer {
        checker.error(
            &mode,
            "other servers of this Redis may write the same keys, each through a journal of its \
             own and in an order of its own",
            "say only_writer = true if this server alone writes them, or leave mode out",
        );
    }
}

const LANES_MAX: u16 = 4096;
