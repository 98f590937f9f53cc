use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use larder_core::{
    BoxFuture, Class, DynLease, DynStore, Error, ErrorKind, Key, LeaseGrant, LeaseToken,
    PutCondition, PutOutcome, Result, StoredEntry, Tags, Ttl, Value, Version,
};

use super::timetable::{Due, Missed, Ticker, Timetable};

/// Tells the time of day. It may jump.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What is done when a time has come. Run again after an error, and perhaps after a
/// process ended in the middle of it: it must not matter.
pub type ScheduledTask = Arc<dyn Fn(Due) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// Runs what is due, until it is dropped.
///
/// With a store that others share, and its leases, each time is run by one process:
/// who gets the lease runs it, notes in the store that it has been, and gives the
/// lease back. Nobody runs what is noted. A process that ends before it has noted
/// leaves it to another one, once its lease has run out. With a store of its own a
/// process knows after a restart what it has missed; without any it does not.
pub struct Calendar {
    plans: Vec<Plan>,
    clock: WallClock,
    lease: Option<Arc<dyn DynLease>>,
    record: Option<Arc<dyn DynStore>>,
    counts: Arc<Counts>,
}

/// What a calendar has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct CalendarStatistics {
    /// Times that were run here.
    pub run: u64,
    /// Of these, the ones that came late.
    pub late: u64,
    /// Times that had been run, by another process or before a restart.
    pub elsewhere: u64,
    /// Attempts that failed and are made again.
    pub failed: u64,
}

#[derive(Default)]
struct Counts {
    run: AtomicU64,
    late: AtomicU64,
    elsewhere: AtomicU64,
    failed: AtomicU64,
}

struct Plan {
    name: String,
    timetable: Timetable,
    missed: Missed,
    task: ScheduledTask,
    /// `None` until the record has been read.
    ticker: Option<Ticker>,
    /// Due, and not known to have been run.
    open: Vec<Due>,
}

/// How a time is claimed.
enum Claim {
    Granted(Option<LeaseToken>),
    DoneElsewhere,
    UnderWay,
}

/// How often the clock is looked at: so late is a run at most, and so soon is a jump
/// of the clock noticed.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// After this long another process takes over what one did not note as done.
const LEASE_DURATION: Duration = Duration::from_secs(60);

/// So many times of one schedule wait at most; of more the oldest goes.
const OPEN_MAX: usize = 64;

/// Makes a [`Calendar`].
#[must_use]
pub struct CalendarBuilder(Calendar);

impl Calendar {
    /// An empty calendar by the machine's time of day.
    pub fn builder() -> CalendarBuilder {
        CalendarBuilder(Self {
            plans: Vec::new(),
            clock: Arc::new(Timestamp::now),
            lease: None,
            record: None,
            counts: Arc::default(),
        })
    }

    /// Runs what is due, for ever.
    ///
    /// # Cancel safety
    /// What was being run when this is dropped may have been run or not.
    pub async fn run(mut self) {
        loop {
            self.look().await;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Runs what has come due since the last look.
    pub async fn look(&mut self) {
        let now = (self.clock)();
        for place in 0..self.plans.len() {
            if self.plans[place].ticker.is_none() && self.begin(place, now).await.is_err() {
                continue;
            }
            let plan = &mut self.plans[place];
            if let Some(ticker) = &mut plan.ticker {
                plan.open.extend(ticker.look(now));
            }
            plan.open.drain(..plan.open.len().saturating_sub(OPEN_MAX));
            for due in std::mem::take(&mut self.plans[place].open) {
                if !self.settle(&self.plans[place], due).await {
                    self.plans[place].open.push(due);
                }
            }
        }
    }

    /// A look at what it has done.
    pub fn watch(&self) -> impl Fn() -> CalendarStatistics + Send + Sync + 'static {
        let counts = Arc::clone(&self.counts);
        move || {
            let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            CalendarStatistics {
                run: count(&counts.run),
                late: count(&counts.late),
                elsewhere: count(&counts.elsewhere),
                failed: count(&counts.failed),
            }
        }
    }

    /// Finds out up to when a schedule has been run.
    async fn begin(&mut self, place: usize, now: Timestamp) -> Result<()> {
        let noted = self.noted(&self.plans[place].name).await.inspect_err(|error| {
            tracing::debug!(%error, "what was run last is not known yet");
        })?;
        let plan = &mut self.plans[place];
        let until = noted.map_or(now, |noted| noted.min(now));
        plan.ticker = Some(Ticker::new(plan.timetable.clone(), plan.missed, until));
        Ok(())
    }

    /// Runs a time, unless another process does. Says whether it is settled.
    async fn settle(&self, plan: &Plan, due: Due) -> bool {
        let counts = &self.counts;
        let token = match self.claim(plan, due).await {
            Ok(Claim::Granted(token)) => token,
            Ok(Claim::DoneElsewhere) => {
                counts.elsewhere.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            Ok(Claim::UnderWay) => return false,
            Err(error) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, schedule = plan.name, "it is tried again");
                return false;
            }
        };
        let done = async {
            (plan.task)(due).await?;
            self.note(&plan.name, due.at).await
        };
        let done = done.await;
        if let (Some(lease), Some(token)) = (&self.lease, token) {
            let _ = lease.release_many(&[(lease_key(plan, due), token)]).await;
        }
        match done {
            Ok(()) => {
                counts.run.fetch_add(1, Ordering::Relaxed);
                counts.late.fetch_add(u64::from(due.is_late), Ordering::Relaxed);
                tracing::info!(schedule = plan.name, due = %due.at, late = due.is_late, "run");
                true
            }
            Err(error) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, schedule = plan.name, "it failed and is tried again");
                false
            }
        }
    }

    async fn claim(&self, plan: &Plan, due: Due) -> Result<Claim> {
        let is_done = |noted: Option<Timestamp>| noted.is_some_and(|noted| noted >= due.at);
        if is_done(self.noted(&plan.name).await?) {
            return Ok(Claim::DoneElsewhere);
        }
        let Some(lease) = &self.lease else { return Ok(Claim::Granted(None)) };
        let key = lease_key(plan, due);
        let granted = lease.acquire_many(std::slice::from_ref(&key), LEASE_DURATION).await?;
        let Some(LeaseGrant::Granted(token)) = granted.into_iter().next() else {
            return Ok(Claim::UnderWay);
        };
        // Another may have noted it and given the lease back since.
        if is_done(self.noted(&plan.name).await?) {
            lease.release_many(&[(key, token)]).await?;
            return Ok(Claim::DoneElsewhere);
        }
        Ok(Claim::Granted(Some(token)))
    }

    /// The last time that is known to have been run.
    async fn noted(&self, name: &str) -> Result<Option<Timestamp>> {
        let Some(record) = &self.record else { return Ok(None) };
        let held = record.get_many(&[record_key(name)]).await?.into_iter().next().flatten();
        let value = held.and_then(|held| match held.value {
            Value::Present(bytes) => std::str::from_utf8(&bytes).ok()?.parse().ok(),
            Value::Absent => None,
        });
        Ok(value)
    }

    async fn note(&self, name: &str, at: Timestamp) -> Result<()> {
        let Some(record) = &self.record else { return Ok(()) };
        if self.noted(name).await?.is_some_and(|noted| noted >= at) {
            return Ok(());
        }
        let entry = StoredEntry {
            value: Value::Present(Bytes::from(at.to_string())),
            codec: 0,
            // In microseconds, as stores number what begins a history.
            version: Version::new((self.clock)().as_microsecond().max(0) as u64),
            age: Duration::ZERO,
            fresh_for: Ttl::For(RECORD_KEPT),
            stale_for: Ttl::For(RECORD_KEPT),
            load_cost: Duration::ZERO,
            tags: Tags::default(),
            class: Class::Public,
        };
        let entries = [(record_key(name), entry)];
        let put = record.put_many(&entries, PutCondition::NewerThanHeld).await?;
        match put.first() {
            Some(PutOutcome::Refused(version)) => {
                Err(Error::new(ErrorKind::Conflict, "the record of a schedule was refused")
                    .with("schedule", name)
                    .with("held", version)
                    .remedy("compare the clocks of the servers"))
            }
            _ => Ok(()),
        }
    }
}

/// For how long it is known when a schedule was run last.
const RECORD_KEPT: Duration = Duration::from_secs(400 * 24 * 3600);

impl CalendarBuilder {
    /// Does something at the times of a timetable. The name tells it from others, in
    /// every process.
    pub fn schedule(
        mut self,
        name: &str,
        timetable: Timetable,
        missed: Missed,
        task: ScheduledTask,
    ) -> Self {
        let name = name.to_owned();
        let plan = Plan { name, timetable, missed, task, ticker: None, open: Vec::new() };
        self.0.plans.push(plan);
        self
    }

    /// Keeps the record of what was run last in this store.
    pub fn record(mut self, store: Arc<dyn DynStore>) -> Self {
        self.0.record = Some(store);
        self
    }

    /// Runs each time once over all processes with these leases. They need a record
    /// that the same processes share.
    pub fn lease(mut self, lease: Arc<dyn DynLease>) -> Self {
        self.0.lease = Some(lease);
        self
    }

    /// Tells the time by another clock.
    pub fn wall_clock(mut self, clock: WallClock) -> Self {
        self.0.clock = clock;
        self
    }

    /// The calendar.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for two schedules of one name, and for leases without a
    /// record.
    pub fn build(self) -> Result<Calendar> {
        let Self(calendar) = self;
        let mut names: Vec<&str> = calendar.plans.iter().map(|plan| plan.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|two| two[0] == two[1]) {
            return Err(Error::new(ErrorKind::Config, "two schedules have one name")
                .with("name", twice[0])
                .remedy("give each a name of its own"));
        }
        if calendar.lease.is_some() && calendar.record.is_none() {
            return Err(Error::new(ErrorKind::Config, "leases without a record run things twice")
                .remedy("give the calendar the store that the processes share"));
        }
        Ok(calendar)
    }
}

fn record_key(name: &str) -> Key {
    Key::new(format!("schedule:{name}"))
}

fn lease_key(plan: &Plan, due: Due) -> Key {
    Key::new(format!("schedule:{}:{}", plan.name, due.at.as_second()))
}

impl fmt::Debug for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.plans.iter().map(|plan| plan.name.as_str()).collect();
        f.debug_struct("Calendar").field("schedules", &names).finish_non_exhaustive()
    }
}
