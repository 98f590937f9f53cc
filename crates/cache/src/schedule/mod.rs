//! What is done at certain times: once over all processes that share a record of it.
//!
//! ```text
//! Timetable   when it is due: cron, zone, jitter; pure
//! Ticker      what has come due since the last look, whatever the clock did; pure
//! Calendar    runs what has come due: claims it among the nodes, notes that it is done
//! ```

mod calendar;
mod timetable;

pub use calendar::{Calendar, CalendarBuilder, CalendarStatistics, ScheduledTask, WallClock};
pub use timetable::{Due, Missed, Ticker, Timetable};
