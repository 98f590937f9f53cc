use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use fjall::compaction::filter::{
    CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
};
use parking_lot::Mutex;

use crate::layout;
use crate::recency::Recency;
use crate::record::{Floor, Head, Limits, gravestone_record};
use crate::timeline::Timeline;

/// What compaction leaves out: what is dead, and, when the directory is full,
/// what is worth least.
///
/// Compaction rewrites tables anyway, and keys stand in the order of their
/// hashes, so each run meets a fair sample of all entries. Eviction is done there
/// and costs no I/O of its own: no index of entries in memory, no scan, no
/// deletions that first take space themselves. Which entries go: those of the
/// worst ratio of (age × bytes) to load cost, among what compaction met lately,
/// as many as the pressure asks for; what was read since compaction last came by
/// is passed over once (as in the CLOCK algorithm).
///
/// What an invalidation refuses has to outlive the entry: for as long as its
/// window lasts, a gravestone takes the place of what is left out.
pub(crate) struct Reclaim {
    timeline: Arc<Timeline>,
    limits: Limits,
    recency: Arc<Recency>,
    /// What part of the bytes is to go, in thousandths.
    pressure: AtomicU32,
    burdens: Mutex<Burdens>,
    pub(crate) dead_count: AtomicU64,
    pub(crate) evicted_count: AtomicU64,
}

/// Above this the disk is so full that what was read lately goes, too.
const PRESSURE_FOR_RECENT: u32 = 350;

impl Reclaim {
    pub(crate) fn new(timeline: Arc<Timeline>, limits: Limits, recency: Arc<Recency>) -> Self {
        Self {
            timeline,
            limits,
            recency,
            pressure: AtomicU32::new(0),
            burdens: Mutex::new(Burdens { bytes: [0; BURDENS] }),
            dead_count: AtomicU64::new(0),
            evicted_count: AtomicU64::new(0),
        }
    }

    /// Asks for a part of the bytes, in thousandths.
    pub(crate) fn press(&self, thousandths: u32) {
        self.pressure.store(thousandths, Ordering::Relaxed);
    }

    /// What becomes of one record.
    fn judge(&self, key: &[u8], record: &[u8], pass: &mut Pass) -> Fate {
        let (Some(hash), Some(head)) = (layout::entry_hash(key), Head::read(record)) else {
            return Fate::Stays;
        };
        // Until it is known how late it is, nothing is dead.
        let Some(now) = self.timeline.now() else { return Fate::Stays };
        let floor = head.live_floor(now, self.limits);
        if head.is_gravestone {
            return if floor.is_some() { Fate::Stays } else { Fate::Goes };
        }
        if head.is_dead(now, self.limits) {
            self.dead_count.fetch_add(1, Ordering::Relaxed);
            return floor.map_or(Fate::Goes, Fate::Buried);
        }
        let bytes = key.len() + record.len();
        let burden = burden(now.micros - head.read_at_micros, bytes, head.load_cost_micros);
        pass.seen[burden] += bytes as u64;
        if burden <= pass.bearable {
            return Fate::Stays;
        }
        if self.recency.take(hash) && pass.pressure < PRESSURE_FOR_RECENT {
            return Fate::Stays;
        }
        self.evicted_count.fetch_add(1, Ordering::Relaxed);
        floor.map_or(Fate::Goes, Fate::Buried)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Stays,
    Goes,
    Buried(Floor),
}

/// Gives fjall a filter for each compaction.
pub(crate) struct Filters(pub(crate) AssertUnwindSafe<Arc<Reclaim>>);

impl Factory for Filters {
    fn name(&self) -> &str {
        "larder"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        let reclaim = Arc::clone(&self.0);
        let pressure = reclaim.pressure.load(Ordering::Relaxed);
        let bearable = reclaim.burdens.lock().bearable(pressure);
        let pass = Pass { pressure, bearable, seen: [0; BURDENS] };
        Box::new(Filter { reclaim, pass })
    }
}

struct Filter {
    reclaim: Arc<Reclaim>,
    pass: Pass,
}

/// One run of compaction.
struct Pass {
    pressure: u32,
    /// Entries of greater burden go.
    bearable: usize,
    /// Bytes by burden.
    seen: [u64; BURDENS],
}

impl CompactionFilter for Filter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        let key = item.key();
        Ok(match self.reclaim.judge(key, &item.value()?, &mut self.pass) {
            Fate::Stays => Verdict::Keep,
            // Not without a trace: a table further down may hold an older one.
            Fate::Goes => Verdict::Remove,
            Fate::Buried(floor) => Verdict::ReplaceValue(gravestone_record(key, floor).into()),
        })
    }

    fn finish(self: Box<Self>) {
        self.reclaim.burdens.lock().add(&self.pass.seen);
    }
}

/// Steps of a burden: four for each doubling.
const BURDENS: usize = 256;
/// Fewer bytes than this say nothing about what is usual.
const SAMPLE_BYTES_MIN: u64 = 1 << 20;
/// When so much was seen, what was seen before counts half.
const SAMPLE_BYTES_MAX: u64 = 256 << 20;

/// How much it costs to keep something beside what it costs to load it again:
/// bytes × seconds for each millisecond of load, as four times its binary
/// logarithm.
fn burden(age_micros: u64, bytes: usize, load_cost_micros: u64) -> usize {
    let kept = (age_micros / 1_000_000 + 1) as f64 * bytes as f64;
    let load = load_cost_micros as f64 / 1000.0 + 0.1;
    // The loads of a minute bring it down to about −16 × 4; the offset keeps
    // the order of what is cheap to keep.
    let quarters = (kept / load).log2() * 4.0 + 64.0;
    quarters.clamp(0.0, (BURDENS - 1) as f64) as usize
}

/// How many bytes of which burden compaction met lately.
struct Burdens {
    bytes: [u64; BURDENS],
}

impl Burdens {
    fn add(&mut self, seen: &[u64; BURDENS]) {
        for (bytes, seen) in self.bytes.iter_mut().zip(seen) {
            *bytes += seen;
        }
        while self.bytes.iter().sum::<u64>() > SAMPLE_BYTES_MAX {
            self.bytes.iter_mut().for_each(|bytes| *bytes /= 2);
        }
    }

    /// The greatest burden that stays if so many thousandths of the bytes go.
    fn bearable(&self, thousandths: u32) -> usize {
        let total: u64 = self.bytes.iter().sum();
        if thousandths == 0 || total < SAMPLE_BYTES_MIN {
            return BURDENS - 1;
        }
        let may_stay = total - total * u64::from(thousandths.min(1000)) / 1000;
        let mut below = 0;
        for (burden, bytes) in self.bytes.iter().enumerate() {
            below += bytes;
            if below > may_stay {
                return burden.saturating_sub(1);
            }
        }
        BURDENS - 1
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use larder_core::{Clock, Key, MachineClock, ManualClock, Version};
    use larder_testkit::conformance::store::entry;

    use super::*;
    use crate::record::{entry_frame, entry_record};

    const WINDOW: Duration = Duration::from_secs(60);

    struct Setting {
        clock: ManualClock,
        reclaim: Reclaim,
        key: Vec<u8>,
    }

    fn setting() -> Setting {
        let clock = ManualClock::new();
        let timeline = Arc::new(Timeline::new(Clock::from(clock.clone())));
        timeline.start(None, &MachineClock::system());
        let limits = Limits::new(WINDOW, Duration::from_secs(3600));
        let reclaim = Reclaim::new(timeline, limits, Arc::new(Recency::new()));
        Setting { clock, reclaim, key: layout::entry_key("a", &Key::new("k")).expect("short") }
    }

    impl Setting {
        fn now_micros(&self) -> u64 {
            self.reclaim.timeline.now().expect("it started").micros
        }

        fn record(&self, floor: Option<Floor>) -> Vec<u8> {
            let frame = entry_frame(&entry("value", 5), self.now_micros()).expect("few tags");
            entry_record(&self.key, &frame, floor)
        }

        fn fate(&self, record: &[u8], pressure: u32, bearable: usize) -> Fate {
            let mut pass = Pass { pressure, bearable, seen: [0; BURDENS] };
            self.reclaim.judge(&self.key, record, &mut pass)
        }
    }

    #[test]
    fn what_is_dead_goes_and_leaves_its_floor() {
        let setting = setting();
        let plain = setting.record(None);
        assert_eq!(setting.fate(&plain, 0, BURDENS - 1), Fate::Stays);
        setting.clock.advance(Duration::from_secs(30));
        let floor = Floor { version: Version::new(9), at_micros: setting.now_micros() };
        let invalidated = setting.record(Some(floor));
        let gravestone = gravestone_record(&setting.key, floor);
        setting.clock.advance(Duration::from_secs(30));
        assert_eq!(setting.fate(&plain, 0, BURDENS - 1), Fate::Goes);
        assert_eq!(setting.fate(&gravestone, 0, BURDENS - 1), Fate::Stays);
        setting.clock.advance(Duration::from_secs(29));
        assert_eq!(setting.fate(&invalidated, 500, 0), Fate::Buried(floor));
        setting.clock.advance(Duration::from_secs(2));
        assert_eq!(setting.fate(&gravestone, 0, BURDENS - 1), Fate::Goes);
        assert_eq!(setting.fate(&invalidated, 0, BURDENS - 1), Fate::Goes);
    }

    #[test]
    fn what_was_read_is_passed_over_once_unless_the_disk_is_nearly_full() {
        let setting = setting();
        let record = setting.record(None);
        let hash = layout::entry_hash(&setting.key).expect("an entry");
        setting.reclaim.recency.touch(hash);
        assert_eq!(setting.fate(&record, 100, 0), Fate::Stays);
        assert_eq!(setting.fate(&record, 100, 0), Fate::Goes);
        setting.reclaim.recency.touch(hash);
        assert_eq!(setting.fate(&record, PRESSURE_FOR_RECENT, 0), Fate::Goes);
    }

    #[test]
    fn nothing_is_judged_before_the_time_is_known_and_state_never() {
        let mut setting = setting();
        let record = setting.record(None);
        let mut pass = Pass { pressure: 500, bearable: 0, seen: [0; BURDENS] };
        let state = setting.reclaim.judge(&layout::anchor_key(), &record, &mut pass);
        assert_eq!(state, Fate::Stays);
        setting.reclaim.timeline = Arc::new(Timeline::new(Clock::monotonic()));
        assert_eq!(setting.fate(&record, 500, 0), Fate::Stays);
    }

    #[test]
    fn old_large_and_cheap_is_a_burden() {
        let usual = burden(60_000_000, 1000, 5000);
        assert!(burden(600_000_000, 1000, 5000) > usual);
        assert!(burden(60_000_000, 10_000, 5000) > usual);
        assert!(burden(60_000_000, 1000, 500) > usual);
        assert!(burden(0, 1, u64::MAX) < burden(u64::MAX, usize::MAX, 0));
    }

    #[test]
    fn as_much_goes_as_is_asked() {
        let mut burdens = Burdens { bytes: [0; BURDENS] };
        assert_eq!(burdens.bearable(500), BURDENS - 1, "nothing is known yet");
        let mut seen = [0; BURDENS];
        seen[10..20].fill(1 << 20);
        burdens.add(&seen);
        for (thousandths, goes) in [(0, 0), (100, 1), (500, 5), (1000, 10)] {
            let bearable = burdens.bearable(thousandths);
            let gone: u64 = burdens.bytes[bearable + 1..].iter().sum();
            assert_eq!(gone, goes << 20, "{thousandths} thousandths");
        }
        for _ in 0..100 {
            burdens.add(&seen);
        }
        assert!(burdens.bytes.iter().sum::<u64>() <= SAMPLE_BYTES_MAX);
    }
}
