use super::WallTime;

/// A time in 64 ms steps from the keyspace's start, rounded down: four bytes
/// that say which buckets are worth a look.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Deadline(u32);

impl Deadline {
    /// Nothing expires.
    pub(super) const NONE: Self = Self(u32::MAX);
    const STEP_MILLIS: i64 = 64;

    /// The step in which `time` lies. What lies before `epoch` is due at once;
    /// what lies more than eight years after it is looked at from then on.
    pub(super) fn of(time: WallTime, epoch: WallTime) -> Self {
        let millis = time.unix_millis().saturating_sub(epoch.unix_millis()).max(0);
        let steps = u32::try_from(millis / Self::STEP_MILLIS).unwrap_or(u32::MAX);
        Self(steps.min(u32::MAX - 1))
    }
}
