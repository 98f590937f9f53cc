//! How many threads serve: as few as carry the load.
//!
//! Connections on one thread share its wake-ups, and leave the other cores to
//! those who send the requests. So the door begins with one thread, takes more
//! when those in use are busy while cores are idle, and gives them up again when
//! fewer would do. A connection's thread follows from its number and the number
//! of threads in use: connections move by themselves, see `connection`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::worker::Worker;

/// How often is looked.
const PERIOD: Duration = Duration::from_millis(250);

/// Share of the time from which a thread counts as busy.
const BUSY: f64 = 0.9;

/// Cores that must be idle before another thread is taken.
const IDLE_CORES_MIN: f64 = 0.5;

/// For so many periods it must be so before threads are taken: half a second.
const GROW_AFTER: u32 = 2;

/// The share of the time that threads are to work if there are fewer of them.
const RELAXED: f64 = 0.5;

/// For so many periods fewer must be enough: ten seconds.
const SHRINK_AFTER: u32 = 40;

/// How many threads are in use.
#[derive(Debug)]
pub(crate) struct Balance {
    in_use: AtomicUsize,
}

impl Balance {
    pub(crate) fn new(in_use: usize) -> Self {
        Self { in_use: AtomicUsize::new(in_use) }
    }

    #[inline]
    pub(crate) fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    pub(crate) fn set_in_use(&self, count: usize) {
        self.in_use.store(count, Ordering::Relaxed);
    }

    /// The thread for the client of this number.
    #[inline]
    pub(crate) fn place(&self, client_id: u64) -> usize {
        match self.in_use() {
            0 | 1 => 0,
            count => (client_id % count as u64) as usize,
        }
    }
}

/// Watches the threads and takes or gives up some of them, for ever.
pub(crate) async fn keep(balance: &Balance, workers: &[std::sync::Arc<Worker>]) {
    let mut watch = Watch::default();
    let mut judge = Judge::new(workers.len());
    let mut interval = tokio::time::interval(PERIOD);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        interval.tick().await;
        let Some(period) = watch.look(workers) else { continue };
        let count = judge.decide(balance.in_use(), &period);
        if count != balance.in_use() {
            tracing::debug!(from = balance.in_use(), to = count, "threads in use");
            balance.set_in_use(count);
        }
    }
}

/// Whether this system says what is needed.
pub(crate) fn is_possible() -> bool {
    system::idle_time().is_some()
}

/// What the threads and the machine did for a while.
#[derive(Clone, Copy, Debug)]
struct Period {
    /// The share of the time that the busiest thread worked.
    busiest: f64,
    /// The shares of all threads together.
    total: f64,
    /// How many cores had nothing to do.
    idle_cores: f64,
}

/// The figures of the last look.
#[derive(Debug, Default)]
struct Watch {
    last: Option<(Instant, Vec<Duration>, Duration)>,
}

impl Watch {
    /// What happened since the last look.
    fn look(&mut self, workers: &[std::sync::Arc<Worker>]) -> Option<Period> {
        let now = Instant::now();
        let idle = system::idle_time()?;
        let worked: Vec<Duration> = workers
            .iter()
            .map(|worker| system::thread_time(worker.thread_id()?))
            .collect::<Option<_>>()?;
        let (then, worked_then, idle_then) = self.last.replace((now, worked.clone(), idle))?;
        let elapsed = now.duration_since(then).as_secs_f64().max(f64::EPSILON);
        let shares = worked
            .iter()
            .zip(worked_then)
            .map(|(worked, then)| worked.saturating_sub(then).as_secs_f64() / elapsed);
        Some(Period {
            busiest: shares.clone().fold(0.0, f64::max),
            total: shares.sum(),
            idle_cores: idle.saturating_sub(idle_then).as_secs_f64() / elapsed,
        })
    }
}

/// Decides from one period after the other.
#[derive(Debug)]
struct Judge {
    threads: usize,
    growing: u32,
    shrinking: u32,
    /// The most threads that any period asked for since fewer were enough.
    enough: usize,
}

impl Judge {
    fn new(threads: usize) -> Self {
        Self { threads, growing: 0, shrinking: 0, enough: 1 }
    }

    /// How many threads are to be in use from now on.
    fn decide(&mut self, in_use: usize, period: &Period) -> usize {
        let is_short = period.busiest >= BUSY && period.idle_cores >= IDLE_CORES_MIN;
        self.growing = if is_short && in_use < self.threads { self.growing + 1 } else { 0 };
        if self.growing >= GROW_AFTER {
            self.growing = 0;
            let more = (period.idle_cores as usize).clamp(1, in_use);
            return (in_use + more).min(self.threads);
        }
        let enough = ((period.total / RELAXED).ceil() as usize).max(1);
        if enough >= in_use {
            (self.shrinking, self.enough) = (0, 1);
            return in_use;
        }
        self.shrinking += 1;
        self.enough = self.enough.max(enough);
        if self.shrinking < SHRINK_AFTER {
            return in_use;
        }
        let enough = self.enough;
        (self.shrinking, self.enough) = (0, 1);
        enough
    }
}

/// What Linux counts; elsewhere nothing is known.
mod system {
    use std::time::Duration;

    /// The time that all cores together had nothing to do.
    pub(super) fn idle_time() -> Option<Duration> {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        // cpu user nice system idle iowait …
        let all = stat.lines().next()?.strip_prefix("cpu ")?;
        let mut fields = all.split_ascii_whitespace().skip(3);
        let (idle, waiting) = (fields.next()?, fields.next()?);
        ticks(idle.parse::<u64>().ok()? + waiting.parse::<u64>().ok()?)
    }

    /// The time that a thread of this process worked.
    pub(super) fn thread_time(thread_id: i32) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread_id}/stat")).ok()?;
        // The name, in parentheses, may hold spaces.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace().skip(11);
        let (user, system) = (fields.next()?, fields.next()?);
        ticks(user.parse::<u64>().ok()? + system.parse::<u64>().ok()?)
    }

    fn ticks(count: u64) -> Option<Duration> {
        let a_second = rustix::param::clock_ticks_per_second();
        (a_second > 0).then(|| Duration::from_secs_f64(count as f64 / a_second as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(busiest: f64, total: f64, idle_cores: f64) -> Period {
        Period { busiest, total, idle_cores }
    }

    /// What comes of the same period again and again.
    fn decide(judge: &mut Judge, in_use: usize, period: Period, times: u32) -> usize {
        (0..times).fold(in_use, |in_use, _| judge.decide(in_use, &period))
    }

    #[test]
    fn a_busy_thread_is_joined_by_others_while_cores_are_idle() {
        let mut judge = Judge::new(8);
        assert_eq!(decide(&mut judge, 1, period(1.0, 1.0, 7.0), 1), 1, "not at once");
        assert_eq!(decide(&mut judge, 1, period(1.0, 1.0, 7.0), 2), 2);
        assert_eq!(decide(&mut judge, 2, period(1.0, 2.0, 6.0), 2), 4);
        assert_eq!(decide(&mut judge, 4, period(1.0, 4.0, 4.0), 2), 8);
        assert_eq!(decide(&mut judge, 8, period(1.0, 8.0, 4.0), 100), 8, "there are no more");
    }

    #[test]
    fn cores_that_others_need_are_left_to_them() {
        let mut judge = Judge::new(8);
        assert_eq!(decide(&mut judge, 1, period(1.0, 1.0, 0.1), 100), 1);
        assert_eq!(decide(&mut judge, 1, period(0.5, 0.5, 6.0), 100), 1, "not needed");
    }

    #[test]
    fn threads_are_given_up_when_fewer_are_enough_for_long() {
        let mut judge = Judge::new(8);
        let calm = period(0.2, 0.9, 7.0);
        assert_eq!(decide(&mut judge, 8, calm, SHRINK_AFTER - 1), 8);
        assert_eq!(judge.decide(8, &period(1.0, 6.0, 0.0)), 8, "it was too early");
        assert_eq!(decide(&mut judge, 8, calm, SHRINK_AFTER - 1), 8);
        assert_eq!(judge.decide(8, &calm), 2);
        assert_eq!(decide(&mut judge, 2, period(0.0, 0.0, 8.0), SHRINK_AFTER), 1);
        assert_eq!(decide(&mut judge, 1, period(0.0, 0.0, 8.0), 1000), 1, "never none");
    }

    #[test]
    fn every_client_has_a_thread_in_use() {
        let balance = Balance::new(1);
        assert!((0..100).all(|id| balance.place(id) == 0));
        balance.set_in_use(3);
        let mut clients = [0; 3];
        (0..300).for_each(|id| clients[balance.place(id)] += 1);
        assert_eq!(clients, [100; 3]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_the_system_counts_is_found() {
        assert!(is_possible());
        let this = rustix::thread::gettid().as_raw_nonzero().get();
        assert!(system::thread_time(this).is_some());
        assert!(system::thread_time(i32::MAX).is_none());
    }
}
