//! What is asked for: the same sequence in every run.

/// A small generator with a fixed seed (SplitMix64, by Sebastiano Vigna).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator with this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number from 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number below `limit`.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }
}

/// Ranks drawn so that the one at place `r` comes up in proportion to
/// `1 / r^exponent` (Zipf's law).
#[derive(Clone, Debug)]
pub struct Zipf {
    cumulated: Vec<f64>,
}

impl Zipf {
    /// The law for this many ranks.
    #[must_use]
    pub fn new(ranks: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let weight = |rank: usize| (rank as f64).powf(-exponent);
        let cumulated: Vec<f64> = (1..=ranks)
            .map(|rank| {
                sum += weight(rank);
                sum
            })
            .collect();
        Self { cumulated: cumulated.into_iter().map(|part| part / sum).collect() }
    }

    /// This many draws, as indices from 0, popular ones scattered over the whole
    /// range so that they do not lie side by side in memory.
    #[must_use]
    pub fn draws(&self, count: usize, random: &mut Random) -> Vec<u32> {
        let ranks = self.cumulated.len();
        let mut place: Vec<u32> = (0..ranks).map(|index| index as u32).collect();
        // The scattering must be the same for every sequence of draws.
        let mut shuffle = Random::new(ranks as u64);
        for index in (1..ranks).rev() {
            place.swap(index, shuffle.below(index as u64 + 1) as usize);
        }
        (0..count)
            .map(|_| {
                let unit = random.unit();
                let rank = self.cumulated.partition_point(|&cumulated| cumulated <= unit);
                place[rank.min(ranks - 1)]
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_law() {
        let draws = Zipf::new(1000, 0.99).draws(200_000, &mut Random::new(1));
        let mut counts = vec![0_u32; 1000];
        for index in draws {
            counts[index as usize] += 1;
        }
        counts.sort_unstable_by(|a, b| b.cmp(a));
        // The first rank has 1/H of the draws, with H the sum of 1/r^0.99.
        let harmonic: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-0.99)).sum();
        let first = f64::from(counts[0]) / 200_000.0;
        assert!((first * harmonic - 1.0).abs() < 0.05, "{first}");
        assert!(
            (f64::from(counts[0]) / f64::from(counts[9]) / 10_f64.powf(0.99) - 1.0).abs() < 0.2
        );
    }
}
