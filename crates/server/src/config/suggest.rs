//! "Did you mean": the known name closest to a misspelt one.

/// The candidate that differs from the text by the fewest letters, if it is
/// close enough to be what was meant.
#[must_use]
pub fn closest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A text longer than any name is not a misspelt name, and would be slow to compare.
    if text.len() > LENGTH_MAX {
        return None;
    }
    let lowered = text.to_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|candidate| (distance(&lowered, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

const LENGTH_MAX: usize = 64;

/// Levenshtein's distance: inserted, removed and exchanged letters, and two
/// swapped neighbours as one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let exchanged = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = exchanged.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let names = ["ttl", "ttl_class", "tags", "stale_if_error", "key"];
        assert_eq!(closest("tll", names), Some("ttl"));
        assert_eq!(closest("stale-if-eror", names), Some("stale_if_error"));
        assert_eq!(closest("TTL_Clas", names), Some("ttl_class"));
        assert_eq!(closest("colour", names), None);
        assert_eq!(closest(&"x".repeat(10_000), names), None);
    }
}
