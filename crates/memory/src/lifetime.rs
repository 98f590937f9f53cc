use std::time::Duration;

use larder_core::Moment;

/// What decides, besides the limits of the entry itself, how long it is kept and
/// when somebody should look after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetime {
    /// The entry expires when it was not accessed for this long.
    pub idle: Option<Duration>,
    /// Each access makes the entry fresh for longer.
    pub sliding: Option<Sliding>,
    /// From when on a hit needs more than being served: an early refresh, say.
    /// Counts as no later than the end of freshness.
    pub attention_at: Moment,
}

/// Freshness that grows with use (K3): an access with `remaining` freshness left
/// makes it `min(base, remaining × 1.5)`.
///
/// An access never shortens freshness. The stale window after it and the lead of
/// `attention_at` before it move along.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sliding {
    /// The longest freshness an access can bring about.
    pub base: Duration,
    /// Where freshness and stale window end whatever the accesses.
    pub limit: Moment,
}

impl Lifetime {
    /// As long as the entry's own limits say, and no attention before it is
    /// stale.
    pub const OF_ENTRY: Self = Self { idle: None, sliding: None, attention_at: Moment::NEVER };
}

impl Default for Lifetime {
    fn default() -> Self {
        Self::OF_ENTRY
    }
}
