use std::sync::atomic::{AtomicU64, Ordering};

/// Which entries were read lately: one bit for the hash of each, in as much
/// memory for ten entries as for ten million. Two that share a bit protect each
/// other, which costs a place and no more.
#[derive(Debug)]
pub(crate) struct Recency(Box<[AtomicU64]>);

/// 1 MiB.
const WORDS: usize = 1 << 17;

impl Recency {
    pub(crate) fn new() -> Self {
        Self((0..WORDS).map(|_| AtomicU64::new(0)).collect())
    }

    /// Notes a read.
    pub(crate) fn touch(&self, hash: u64) {
        let (word, bit) = self.place(hash);
        // Most reads find the bit set; they do not take the line from others.
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Whether it was read since this was asked last.
    pub(crate) fn take(&self, hash: u64) -> bool {
        let (word, bit) = self.place(hash);
        word.load(Ordering::Relaxed) & bit != 0
            && word.fetch_and(!bit, Ordering::Relaxed) & bit != 0
    }

    fn place(&self, hash: u64) -> (&AtomicU64, u64) {
        let index = (hash >> 6) as usize % self.0.len();
        (&self.0[index], 1 << (hash % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_protects_once() {
        let recency = Recency::new();
        recency.touch(77);
        recency.touch(77);
        assert!(!recency.take(78));
        assert!(recency.take(77));
        assert!(!recency.take(77));
    }
}
