//! How the memory budget is divided.

use crate::config::SizeOrShare;

/// Who gets how many bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Division {
    /// All together.
    pub budget: u64,
    /// The keys of no cache.
    pub plain_keys: u64,
    /// The caches, in the order asked.
    pub caches: Vec<u64>,
}

/// No cache gets less: below this the bookkeeping outweighs the entries.
const CACHE_LEAST: u64 = 1 << 20;

/// What plain keys get beside caches if nobody says otherwise.
const PLAIN_KEYS_SHARE: f64 = 0.25;

/// Divides a budget: plain keys and the caches that name a part get that, the
/// other caches equal parts of what is left, each at least 1 MiB.
#[must_use]
pub(super) fn divide(
    budget: u64,
    plain_keys: Option<SizeOrShare>,
    caches: &[Option<SizeOrShare>],
) -> Division {
    let plain = match plain_keys {
        Some(part) => part.of(budget),
        None if caches.is_empty() => budget,
        None => SizeOrShare::Share(PLAIN_KEYS_SHARE).of(budget),
    };
    let named: u64 = caches.iter().flatten().map(|part| part.of(budget)).sum();
    let others = caches.iter().filter(|part| part.is_none()).count() as u64;
    let left = budget.saturating_sub(plain).saturating_sub(named);
    let each = left.checked_div(others).unwrap_or_default().max(CACHE_LEAST);
    let caches = caches
        .iter()
        .map(|part| part.map_or(each, |part| part.of(budget).max(CACHE_LEAST)))
        .collect();
    Division { budget, plain_keys: plain, caches }
}

/// The memory that this process may use: the machine's, or its container's if
/// that is less.
#[must_use]
pub(super) fn available() -> u64 {
    let container = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .or_else(|_| std::fs::read_to_string("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    let least = [container, machine].into_iter().flatten().min();
    least.unwrap_or(UNKNOWN)
}

/// Where the machine does not say.
const UNKNOWN: u64 = 1 << 30;

fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn without_caches_plain_keys_get_everything() {
        assert_eq!(divide(100 * MIB, None, &[]).plain_keys, 100 * MIB);
        assert_eq!(divide(100 * MIB, Some(SizeOrShare::Share(0.5)), &[]).plain_keys, 50 * MIB);
    }

    #[test]
    fn caches_share_what_nobody_claims() {
        let parts = [Some(SizeOrShare::Bytes(15 * MIB)), None, None];
        let division = divide(100 * MIB, None, &parts);
        assert_eq!(division.plain_keys, 25 * MIB);
        assert_eq!(division.caches, [15 * MIB, 30 * MIB, 30 * MIB]);
    }

    #[test]
    fn no_cache_gets_less_than_it_can_use() {
        let division = divide(4 * MIB, None, &[None; 100]);
        assert!(division.caches.iter().all(|bytes| *bytes == MIB));
    }

    #[test]
    fn the_machine_says_how_much_it_has() {
        assert_eq!(total_of("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16 * 1024));
        assert!(available() > 0);
    }
}
