//! Larder compared with its peers: one binary for each question, all contenders
//! in the same run, in interleaved rounds, reported as medians and ratios.
//!
//! | binary | question |
//! |---|---|
//! | `hits` | what does a hit in memory cost beside other caches? |
//! | `resp` | what does a GET or SET over the network cost beside redis-server? |
//! | `front` | what does it cost to put Larder in front of a Redis, and what does it save? |
//! | `memory` | how far is resident memory from the budget? |
//! | `invalidate` | what does it take to invalidate a million entries at once? |
//! | `fleet` | how soon does a node hear what another has invalidated? |
//! | `behind` | how many durable writes are acknowledged in a second, beside writing to the database? |
//! | `stampede` | how many queries does a database get when everybody asks at once? |
//!
//! A figure here never fails a test. `docs/benchmarks.md` says how to run each
//! and what was measured.

pub mod load;
pub mod process;
pub mod redis_benchmark;
pub mod report;

/// The middle value; of an even number, the mean of the two in the middle.
///
/// # Panics
/// If there are no values.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    assert!(!values.is_empty(), "a median of at least one value");
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
    }
}
