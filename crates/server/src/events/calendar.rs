use std::sync::Arc;

use larder::event_rules::{EventTargets, Touched};
use larder::schedule::{Calendar, Missed, ScheduledTask, Timetable};
use larder_core::{BoxFuture, Result, Tag};
use larder_disk::DiskTier;

use super::{RECORDS, ServedCaches, verb};
use crate::config::{MissedChoice, ScheduleOptions, Settings};
use crate::serve::SharedTiers;

/// The schedules of the configuration; `None` where there are none. What was run last
/// is noted in the shared Redis, or on this machine's disk.
///
/// # Errors
/// For a schedule that the checks let pass and should not have, and for a disk that
/// does not take the record.
pub(crate) fn calendar(
    settings: &Settings,
    targets: ServedCaches,
    disk: Option<&DiskTier>,
    shared: Option<&SharedTiers>,
) -> Result<Option<Calendar>> {
    if settings.config.schedule.is_empty() {
        return Ok(None);
    }
    let targets = Arc::new(targets);
    let mut builder = Calendar::builder();
    for options in &settings.config.schedule {
        let timetable = Timetable::new(&options.cron, &options.zone)?;
        let jitter = options.jitter.map(|jitter| jitter.0).unwrap_or_default();
        let missed = match options.missed {
            MissedChoice::Skip => Missed::Skip,
            MissedChoice::Run => Missed::Run,
        };
        let timetable = timetable.jitter(&options.name, jitter);
        builder = builder.schedule(&options.name, timetable, missed, task(&targets, options));
    }
    if let Some(shared) = shared {
        builder = builder
            .record(Arc::new(shared.redis.store(RECORDS)))
            .lease(Arc::new(shared.redis.lease(RECORDS)));
    } else if let Some(disk) = disk {
        builder = builder.record(Arc::new(disk.store(RECORDS)?));
    }
    builder.build().map(Some)
}

fn task(targets: &Arc<ServedCaches>, options: &ScheduleOptions) -> ScheduledTask {
    let touched = Touched {
        keys: options.keys.clone(),
        tags: options.tags.iter().map(|tag| Tag::new(tag)).collect(),
        caches: options.caches.clone(),
        verb: verb(options.verb),
        window: options.gradual.map(|window| window.0).unwrap_or_default(),
    };
    let targets = Arc::clone(targets);
    Arc::new(move |_| {
        let (targets, touched) = (Arc::clone(&targets), touched.clone());
        Box::pin(async move {
            targets.check(&touched)?;
            targets.invalidate(touched).await
        }) as BoxFuture<'static, Result<()>>
    })
}
