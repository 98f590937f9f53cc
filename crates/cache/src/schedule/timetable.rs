//! When a schedule is due: pure, by whatever clock it is told.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use larder_core::{Error, ErrorKind, Result};

/// Times of a clock on the wall of some place: a cron expression and a time zone.
///
/// Five fields, or six with seconds first. A time at a fixed hour and minute that does
/// not exist, because clocks were put forward, is due when they were; one that there is
/// twice, because they were put back, is due the first time. What repeats, `*/10` say,
/// goes on through both: as often as time passes.
#[derive(Clone, Debug)]
pub struct Timetable {
    cron: Cron,
    zone: TimeZone,
    jitter: Duration,
    seed: u64,
}

/// What becomes of times at which nobody was there to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Missed {
    /// Nothing.
    #[default]
    Skip,
    /// It is run once, as soon as somebody is there again, however many were missed.
    Run,
}

/// What is to be run now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// The time that it was due by the timetable, before jitter.
    pub at: Timestamp,
    /// Whether nobody was there at that time.
    pub is_late: bool,
}

/// Follows a clock through a timetable: every due time comes up once, however the
/// clock moves.
#[derive(Clone, Debug)]
pub struct Ticker {
    timetable: Timetable,
    missed: Missed,
    /// Everything due up to here has come up.
    until: Timestamp,
    /// Nothing is due before.
    idle_until: Timestamp,
}

/// What is due for no longer than this was not missed: a machine may be busy.
const GRACE: Duration = Duration::from_secs(60);

/// So many due times are told apart in one look; of more only the last one counts.
const AT_ONCE_MAX: usize = 64;

impl Timetable {
    /// A timetable of this expression in this zone of the IANA database.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with what is wrong with either.
    pub fn new(expression: &str, zone: &str) -> Result<Self> {
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed);
        let cron = parser.build().parse(expression).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "this is no cron expression")
                .with("expression", expression)
                .with("reason", error)
                .remedy("write minute, hour, day, month and weekday: \"59 23 * * *\"")
        })?;
        let zone = TimeZone::get(zone).map_err(|_| {
            Error::new(ErrorKind::InvalidInput, "there is no such time zone")
                .with("zone", zone)
                .remedy("name it as the IANA does: \"Europe/Berlin\", or \"UTC\"")
        })?;
        let timetable = Self { cron, zone, jitter: Duration::ZERO, seed: 0 };
        // One that never comes is a slip: 30 February.
        match timetable.next_after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(timetable),
            None => Err(Error::new(ErrorKind::InvalidInput, "this time never comes")
                .with("expression", expression)
                .remedy("look at the day and the month")),
        }
    }

    /// Runs each time later by a share of this that follows from the name and the
    /// time: the same in every process.
    #[must_use]
    pub fn jitter(mut self, name: &str, jitter: Duration) -> Self {
        self.jitter = jitter;
        self.seed = mix(name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        }));
        self
    }

    /// The first due time after this one, before jitter.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after = self.local(after);
        self.cron.find_next_occurrence(&after, false).ok().map(|next| next.timestamp())
    }

    /// The last due time up to this one, before jitter.
    #[must_use]
    pub fn last_until(&self, until: Timestamp) -> Option<Timestamp> {
        let until = self.local(until);
        self.cron.find_previous_occurrence(&until, true).ok().map(|last| last.timestamp())
    }

    /// When what is due at a time is run.
    #[must_use]
    pub fn run_at(&self, due: Timestamp) -> Timestamp {
        let share = mix(self.seed ^ due.as_second() as u64);
        let nanos = (self.jitter.as_nanos().saturating_mul(u128::from(share))) >> 64;
        let later = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        due.checked_add(later).unwrap_or(due)
    }

    fn local(&self, at: Timestamp) -> Zoned {
        at.to_zoned(self.zone.clone())
    }
}

impl Ticker {
    /// One that has seen everything up to `until`: the last time that is known to have
    /// been run, or now.
    #[must_use]
    pub fn new(timetable: Timetable, missed: Missed, until: Timestamp) -> Self {
        Self { timetable, missed, until, idle_until: Timestamp::MIN }
    }

    /// What has come due since the last look, oldest first. A clock that was put back
    /// brings nothing up again; one that was put forward, or a machine that slept, has
    /// missed what lies between.
    pub fn look(&mut self, now: Timestamp) -> Vec<Due> {
        if now <= self.until {
            return Vec::new();
        }
        let since = std::mem::replace(&mut self.until, now);
        if now < self.idle_until {
            return Vec::new();
        }
        let jittered = now.checked_sub(self.timetable.jitter).unwrap_or(now);
        self.idle_until = self.timetable.next_after(jittered).unwrap_or(Timestamp::MAX);
        let due = self.between(since, now);
        let is_late = |at: &Timestamp| is_over(self.timetable.run_at(*at), now);
        let last_missed = due.iter().copied().rfind(is_late);
        let on_time = due.iter().copied().filter(|at| !is_late(at));
        let on_time = on_time.map(|at| Due { at, is_late: false });
        match (self.missed, last_missed) {
            (Missed::Run, Some(at)) => {
                std::iter::once(Due { at, is_late: true }).chain(on_time).collect()
            }
            _ => on_time.collect(),
        }
    }

    /// When there is something to look for again.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        let next = self.timetable.next_after(self.until)?;
        Some(self.timetable.run_at(next))
    }

    /// The due times whose moment to be run lies after `since` and not after `now`.
    fn between(&self, since: Timestamp, now: Timestamp) -> Vec<Timestamp> {
        let timetable = &self.timetable;
        let mut at = since.checked_sub(timetable.jitter).unwrap_or(since);
        let mut due = Vec::new();
        while let Some(next) = timetable.next_after(at).filter(|next| *next <= now) {
            at = next;
            let run_at = timetable.run_at(next);
            if since < run_at && run_at <= now {
                due.push(next);
            }
            if due.len() > AT_ONCE_MAX {
                let last = timetable.last_until(now);
                return last.filter(|last| timetable.run_at(*last) <= now).into_iter().collect();
            }
        }
        due
    }
}

fn is_over(run_at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(run_at).unsigned_abs() > GRACE
}

fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ZONES: [&str; 6] = [
        "America/New_York",
        "Europe/Berlin",
        "Australia/Lord_Howe", // half an hour
        "Africa/Cairo",        // at midnight
        "America/Santiago",    // at midnight, the other half of the year
        "UTC",
    ];

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn local(text: &str) -> Timestamp {
        text.parse::<Zoned>().expect("a time in a zone").timestamp()
    }

    /// What comes up in a year, looked at every six hours and half a minute after
    /// it is due.
    fn year(expression: &str, zone: &str) -> Vec<Timestamp> {
        let timetable = Timetable::new(expression, zone).expect("a timetable");
        let mut ticker = Ticker::new(timetable, Missed::Skip, at("2026-01-01T00:00:30Z"));
        let mut now = at("2026-01-01T00:00:30Z");
        let mut run = Vec::new();
        while now < at("2027-01-01T00:00:00Z") {
            let due = ticker.next().expect("it comes again") + Duration::from_secs(30);
            now = due.min(now + Duration::from_secs(6 * 3600));
            run.extend(ticker.look(now).into_iter().inspect(|due| assert!(!due.is_late)));
        }
        run.into_iter().map(|due| due.at).collect()
    }

    #[test]
    fn each_day_of_a_year_is_run_exactly_once_whatever_clocks_do() {
        // In none of these zones but UTC has every day 24 hours.
        for zone in ZONES {
            for expression in ["59 23 * * *", "30 2 * * *", "0 0 * * *", "30 1 * * *", "15 3 * * *"]
            {
                let run = year(expression, zone);
                let zone_of = TimeZone::get(zone).expect("a zone");
                let days: BTreeSet<_> =
                    run.iter().map(|at| at.to_zoned(zone_of.clone()).date()).collect();
                assert_eq!(days.len(), run.len(), "twice on a day: {expression} in {zone}");
                assert!(
                    (364..=366).contains(&run.len()),
                    "{} of {expression} in {zone}",
                    run.len()
                );
                let gap = run.windows(2).map(|two| two[1].duration_since(two[0]).as_hours());
                assert!({ gap }.all(|hours| (21..=27).contains(&hours)), "{expression} in {zone}");
            }
        }
    }

    #[test]
    fn what_repeats_runs_as_often_as_time_passes() {
        for zone in ["America/New_York", "Australia/Lord_Howe", "Africa/Cairo"] {
            // Of a year that has 8760 hours.
            assert_eq!(year("*/30 * * * *", zone).len(), 8760 * 2, "in {zone}");
        }
    }

    #[test]
    fn a_time_that_does_not_exist_is_when_clocks_are_put_forward() {
        let new_york = Timetable::new("30 2 * * *", "America/New_York").expect("a timetable");
        let next = new_york.next_after(local("2026-03-08T00:00-05:00[America/New_York]"));
        assert_eq!(next, Some(local("2026-03-08T03:00-04:00[America/New_York]")));
        let cairo = Timetable::new("15 0 * * *", "Africa/Cairo").expect("a timetable");
        let next = cairo.next_after(local("2026-04-23T12:00+02:00[Africa/Cairo]"));
        assert_eq!(next, Some(local("2026-04-24T01:00+03:00[Africa/Cairo]")));
    }

    #[test]
    fn a_time_that_there_is_twice_is_the_first() {
        let new_york = Timetable::new("30 1 * * *", "America/New_York").expect("a timetable");
        let next = new_york.next_after(local("2026-11-01T00:00-04:00[America/New_York]"));
        let next = next.expect("it comes");
        assert_eq!(next, local("2026-11-01T01:30-04:00[America/New_York]"));
        let next = new_york.next_after(next);
        assert_eq!(next, Some(local("2026-11-02T01:30-05:00[America/New_York]")));
    }

    fn daily(missed: Missed) -> Ticker {
        let timetable = Timetable::new("0 12 * * *", "UTC").expect("a timetable");
        Ticker::new(timetable, missed, at("2026-05-01T00:00:00Z"))
    }

    #[test]
    fn a_clock_that_is_put_back_brings_nothing_up_again() {
        let mut ticker = daily(Missed::Run);
        assert_eq!(ticker.look(at("2026-05-01T12:00:01Z")).len(), 1);
        assert_eq!(ticker.look(at("2026-05-01T11:00:00Z")), []);
        assert_eq!(ticker.look(at("2026-05-01T12:00:00Z")), []);
        assert_eq!(ticker.look(at("2026-05-01T12:30:00Z")), []);
        assert_eq!(ticker.look(at("2026-05-02T12:00:00Z")).len(), 1);
    }

    #[test]
    fn what_was_missed_is_skipped_or_run_once() {
        for (missed, runs) in [(Missed::Skip, 0), (Missed::Run, 1)] {
            let mut ticker = daily(missed);
            // The machine slept for five days, or its clock was put forward.
            let due = ticker.look(at("2026-05-06T08:00:00Z"));
            assert_eq!(due.len(), runs);
            assert!(due.iter().all(|due| due.is_late && due.at == at("2026-05-05T12:00:00Z")));
            let due = ticker.look(at("2026-05-06T12:00:30Z"));
            assert_eq!(due, [Due { at: at("2026-05-06T12:00:00Z"), is_late: false }]);
        }
    }

    #[test]
    fn ages_are_not_walked_through() {
        let timetable = Timetable::new("* * * * * *", "UTC").expect("a timetable");
        let mut ticker = Ticker::new(timetable, Missed::Run, at("1990-01-01T00:00:00Z"));
        assert_eq!(ticker.look(at("2026-01-01T00:00:00Z")).len(), 1);
    }

    #[test]
    fn jitter_runs_each_time_once_and_evenly_later() {
        let timetable = Timetable::new("*/5 * * * *", "UTC").expect("a timetable");
        let jitter = Duration::from_secs(600);
        let timetable = timetable.jitter("rollover", jitter);
        let mut ticker = Ticker::new(timetable.clone(), Missed::Skip, at("2026-05-01T00:00:00Z"));
        let mut now = at("2026-05-01T00:00:00Z");
        let mut run = Vec::new();
        while now < at("2026-05-02T00:00:00Z") {
            now += Duration::from_secs(7);
            for due in ticker.look(now) {
                assert!(due.at <= now && now <= due.at + jitter + Duration::from_secs(7));
                run.push(due.at);
            }
        }
        let distinct: BTreeSet<_> = run.iter().collect();
        assert_eq!(distinct.len(), run.len());
        assert!((285..=288).contains(&run.len()), "{}", run.len());
        // Chi-square over ten parts of the jitter, 9 degrees: 27.9 is passed once in a
        // thousand times; the times are fixed.
        let mut parts = [0_u32; 10];
        for number in 0..2880 {
            let due = at("2026-05-01T00:00:00Z") + Duration::from_secs(300 * number);
            let later = timetable.run_at(due).duration_since(due).as_secs();
            parts[later as usize / 60] += 1;
        }
        let square = |count: &u32| (f64::from(*count) - 288.0).powi(2) / 288.0;
        let sum: f64 = parts.iter().map(square).sum();
        assert!(sum < 27.9, "{sum}: {parts:?}");
    }

    #[test]
    fn mistakes_are_told_with_their_remedy() {
        for (expression, zone) in
            [("59 25 * * *", "UTC"), ("", "UTC"), ("0 0 30 2 *", "UTC"), ("0 0 * * *", "Mars/Base")]
        {
            let error = Timetable::new(expression, zone).expect_err(expression);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.remedy_text().is_some(), "{error}");
        }
    }
}
