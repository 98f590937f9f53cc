//! Whether two key patterns can claim the same key.

use larder_core::KeyPattern;

/// A key pattern taken apart at its colons.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyShape(Vec<Part>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Literal(String),
    /// Literal text, then a parameter.
    Parameter(String),
}

impl KeyShape {
    /// The shape of a pattern.
    #[must_use]
    pub fn of(pattern: &KeyPattern) -> Self {
        let parts = pattern.as_str().split(':').map(|part| match part.find('{') {
            Some(open) => Part::Parameter(part[..open].to_owned()),
            None => Part::Literal(part.to_owned()),
        });
        Self(parts.collect())
    }

    /// Whether both match exactly the same keys.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self == other
    }

    /// Whether some key matches both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        for index in 0..self.0.len().max(other.0.len()) {
            let (Some(a), Some(b)) = (self.0.get(index), other.0.get(index)) else {
                return false;
            };
            if !a.agrees(b) {
                return false;
            }
            // A parameter at the end takes the rest, colons included.
            let a_takes_rest = index + 1 == self.0.len() && matches!(a, Part::Parameter(_));
            let b_takes_rest = index + 1 == other.0.len() && matches!(b, Part::Parameter(_));
            if a_takes_rest || b_takes_rest {
                return true;
            }
        }
        true
    }

    /// What decides who gets a key that both match: the pattern with more parts,
    /// then the one with more literal text.
    #[must_use]
    pub fn rank(&self) -> (usize, usize) {
        let literal = |part: &Part| match part {
            Part::Literal(text) => text.len() + 1,
            Part::Parameter(text) => text.len(),
        };
        (self.0.len(), self.0.iter().map(literal).sum())
    }
}

impl Part {
    fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(a), Self::Literal(b)) => a == b,
            (Self::Literal(text), Self::Parameter(prefix))
            | (Self::Parameter(prefix), Self::Literal(text)) => {
                text.len() > prefix.len() && text.starts_with(prefix.as_str())
            }
            (Self::Parameter(a), Self::Parameter(b)) => {
                a.starts_with(b.as_str()) || b.starts_with(a.as_str())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(text: &str) -> KeyShape {
        KeyShape::of(&text.parse().expect("a pattern"))
    }

    #[test]
    fn patterns_that_share_keys_overlap() {
        for (a, b, overlaps) in [
            ("a:{x}", "a:{y}", true),
            ("a:{x}", "b:{x}", false),
            ("order:{id}", "order:{id}:lines", true),
            ("a:{x}:b", "a:c:{y}", true),
            ("a:{x}:b", "a:{x}:c", false),
            ("a:{x}:b", "a:{x}:{y}", true),
            ("a:{x}:b", "a:{x}:b:{y}", false),
            ("user-{id}", "user-x{id}", true),
            ("user-{id}", "order-{id}", false),
        ] {
            assert_eq!(shape(a).overlaps(&shape(b)), overlaps, "{a} {b}");
            assert_eq!(shape(b).overlaps(&shape(a)), overlaps, "{b} {a}");
        }
        assert!(shape("a:{x}:{y}").is_same(&shape("a:{p}:{q}")));
        assert!(shape("order:{id}:lines").rank() > shape("order:{id}").rank());
    }

    proptest! {
        #[test]
        fn a_key_that_matches_both_means_overlap(
            a in "a(:(b|c|\\{x\\}|b\\{x\\})){0,2}:\\{z\\}",
            b in "a(:(b|c|\\{x\\}|b\\{x\\})){0,2}(:\\{z\\}:c)",
            key in "a(:(b|c|bb)){1,4}",
        ) {
            let (Ok(a), Ok(b)) = (a.parse::<KeyPattern>(), b.parse::<KeyPattern>()) else {
                return Ok(());
            };
            if a.matches(&key) && b.matches(&key) {
                prop_assert!(KeyShape::of(&a).overlaps(&KeyShape::of(&b)), "{a} {b} {key}");
            }
        }
    }
}
