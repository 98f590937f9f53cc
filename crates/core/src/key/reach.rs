use super::pattern::{KeyPattern, Segment};
use crate::{Key, Tag};

/// Which keys of a pattern a prefix or a glob reaches, as something that can be
/// invalidated at once.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reach {
    /// None of them.
    Nothing,
    /// This one.
    Key(Key),
    /// Those that begin so: everything of one customer, say.
    Level(String),
    /// All of them.
    All,
}

/// What reaches at least the keys that were asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cover {
    /// What is reached.
    pub reach: Reach,
    /// Whether that is what was asked for, and no other key.
    pub is_exact: bool,
}

impl Cover {
    fn exact(reach: Reach) -> Self {
        Self { reach, is_exact: true }
    }
}

/// A prefix followed along a pattern.
struct Followed {
    /// How many segments it has passed.
    passed: usize,
    /// As far as it was passed, written out.
    written: String,
    /// What is left of the prefix, which is part of the next segment or contradicts it.
    rest: String,
}

impl KeyPattern {
    /// The tags of a key's levels: of everything that has its first parameter, its
    /// first two, and so on, but not all of them. None for a pattern of one parameter.
    #[must_use]
    pub fn level_tags(&self, key: &str) -> Vec<Tag> {
        let (mut tags, mut rest) = (Vec::new(), key);
        for (index, segment) in self.segments().iter().take(self.follow(key).passed).enumerate() {
            let length = match segment {
                Segment::Literal(text) => text.len(),
                Segment::Parameter => rest.find(':').unwrap_or(rest.len()),
            };
            rest = &rest[length..];
            let is_level = index > 0 && matches!(segment, Segment::Literal(_));
            if is_level && self.segments()[index + 1..].contains(&Segment::Parameter) {
                tags.push(level_tag(&key[..key.len() - rest.len()]));
            }
        }
        tags
    }

    /// What reaches every key that begins with this text.
    #[must_use]
    pub fn cover_prefix(&self, prefix: &str) -> Cover {
        let Followed { passed, written, rest } = self.follow(prefix);
        match self.segments().get(passed) {
            None if rest.is_empty() => Cover::exact(Reach::Key(Key::new(written))),
            None => Cover::exact(Reach::Nothing),
            // The next parameter has only begun.
            Some(Segment::Parameter) => {
                Cover { reach: self.level(passed, &written), is_exact: rest.is_empty() }
            }
            Some(Segment::Literal(text)) if text.starts_with(&rest) => {
                Cover::exact(self.level(passed + 1, &format!("{written}{text}")))
            }
            Some(Segment::Literal(_)) => Cover::exact(Reach::Nothing),
        }
    }

    /// What reaches every key that this glob matches: `*` stands for any text, all else
    /// for itself.
    #[must_use]
    pub fn cover_glob(&self, glob: &str) -> Cover {
        let Some((start, _)) = glob.split_once('*') else {
            let is_key = self.matches(glob);
            let reach = if is_key { Reach::Key(Key::new(glob)) } else { Reach::Nothing };
            return Cover::exact(reach);
        };
        let cover = self.cover_prefix(start);
        let tail = &glob[start.len()..];
        let passed = self.follow(start).passed;
        let is_all_of_it = tail == "*" || tail == self.glob_from(passed);
        Cover { is_exact: cover.is_exact && is_all_of_it, ..cover }
    }

    /// The rest of the pattern with `*` for every parameter.
    fn glob_from(&self, passed: usize) -> String {
        let text = |segment: &Segment| match segment {
            Segment::Literal(text) => text.clone(),
            Segment::Parameter => "*".to_owned(),
        };
        self.segments().iter().skip(passed).map(text).collect()
    }

    /// What so many segments reach, written out like this.
    fn level(&self, passed: usize, written: &str) -> Reach {
        let (before, after) = self.segments().split_at(passed);
        let fixed = before.contains(&Segment::Parameter);
        match (fixed, after.contains(&Segment::Parameter)) {
            (false, _) => Reach::All,
            (true, true) => Reach::Level(written.to_owned()),
            (true, false) => {
                let key = format!("{written}{}", self.glob_from(passed));
                Reach::Key(Key::new(key))
            }
        }
    }

    /// Follows the pattern along a prefix, as far as whole segments go. A parameter is
    /// whole where a `:` follows.
    fn follow(&self, prefix: &str) -> Followed {
        let (mut passed, mut rest) = (0, prefix);
        for (index, segment) in self.segments().iter().enumerate() {
            let length = match segment {
                Segment::Literal(text) => rest.strip_prefix(text.as_str()).map(|_| text.len()),
                // The last one takes the rest, which may go on.
                Segment::Parameter if index + 1 == self.segments().len() => None,
                Segment::Parameter => rest.find(':').filter(|end| *end > 0),
            };
            let Some(length) = length else { break };
            (passed, rest) = (index + 1, &rest[length..]);
        }
        let written = prefix[..prefix.len() - rest.len()].to_owned();
        Followed { passed, written, rest: rest.to_owned() }
    }
}

/// How the tag of a level begins.
pub const LEVEL_TAG: &str = "prefix:";

/// The tag of everything whose key begins so.
#[must_use]
pub fn level_tag(prefix: &str) -> Tag {
    Tag::new(&format!("{LEVEL_TAG}{prefix}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> KeyPattern {
        text.parse().expect("a valid pattern")
    }

    fn level(prefix: &str) -> Reach {
        Reach::Level(prefix.to_owned())
    }

    #[test]
    fn prefixes_reach_whole_levels() {
        let lines = pattern("order:{customer}:{id}:line:{number}");
        let cover = |prefix: &str| {
            let Cover { reach, is_exact } = lines.cover_prefix(prefix);
            (reach, is_exact)
        };
        assert_eq!(cover(""), (Reach::All, true));
        assert_eq!(cover("ord"), (Reach::All, true));
        assert_eq!(cover("order:"), (Reach::All, true));
        assert_eq!(cover("order:1"), (Reach::All, false));
        assert_eq!(cover("order:17:"), (level("order:17:"), true));
        assert_eq!(cover("order:17:3"), (level("order:17:"), false));
        assert_eq!(cover("order:17:3:"), (level("order:17:3:line:"), true));
        assert_eq!(cover("order:17:3:li"), (level("order:17:3:line:"), true));
        assert_eq!(cover("order:17:3:line:"), (level("order:17:3:line:"), true));
        assert_eq!(cover("order:17:3:line:4"), (level("order:17:3:line:"), false));
        assert_eq!(cover("order:17:3:total"), (Reach::Nothing, true));
        assert_eq!(cover("invoice:"), (Reach::Nothing, true));
        let total = pattern("order:{id}:total");
        assert_eq!(total.cover_prefix("order:7:").reach, Reach::Key(Key::new("order:7:total")));
        assert_eq!(total.cover_prefix("order:7:totals").reach, Reach::Nothing);
    }

    #[test]
    fn globs_reach_what_stands_before_their_first_star() {
        let lines = pattern("order:{customer}:{id}");
        let cover = |glob: &str| {
            let Cover { reach, is_exact } = lines.cover_glob(glob);
            (reach, is_exact)
        };
        assert_eq!(cover("*"), (Reach::All, true));
        assert_eq!(cover("order:*"), (Reach::All, true));
        assert_eq!(cover("order:*:*"), (Reach::All, true));
        assert_eq!(cover("order:*:3"), (Reach::All, false));
        assert_eq!(cover("order:17:*"), (level("order:17:"), true));
        assert_eq!(cover("order:17:*3"), (level("order:17:"), false));
        assert_eq!(cover("order:17:3"), (Reach::Key(Key::new("order:17:3")), true));
        assert_eq!(cover("order:17"), (Reach::Nothing, true));
    }

    #[test]
    fn a_key_has_the_tags_of_its_levels() {
        let names = |pattern_text: &str, key: &str| {
            let tags = pattern(pattern_text).level_tags(key);
            tags.iter().map(|tag| tag.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("album:{id}", "album:7"), Vec::<String>::new());
        assert_eq!(names("order:{customer}:{id}", "order:17:3"), ["prefix:order:17:"]);
        assert_eq!(
            names("order:{customer}:{id}:line:{number}", "order:17:3:line:4:5"),
            ["prefix:order:17:", "prefix:order:17:3:line:"],
        );
        assert_eq!(names("order:{id}:total", "order:17:total"), Vec::<String>::new());
    }

    proptest! {
        /// Whatever begins so is reached: by its level's tag, by name, or with all.
        #[test]
        fn no_key_that_begins_so_is_missed(
            shape in prop::sample::select(vec![
                "a:{x}", "a:{x}:{y}", "a:{x}:b:{y}", "a:{x}:{y}:c", "{}a:{x}:{y}:{z}",
            ]),
            values in prop::collection::vec("[ab:%]{1,3}", 3),
            cut in any::<prop::sample::Index>(),
            star in any::<bool>(),
        ) {
            let Ok(pattern) = shape.parse::<KeyPattern>() else { return Ok(()) };
            let key = pattern.key(&values[..pattern.parameters().len()]);
            let ends: Vec<usize> = key.char_indices().map(|(at, _)| at).chain([key.len()]).collect();
            let start = &key[..ends[cut.index(ends.len())]];
            let cover = if star {
                pattern.cover_glob(&format!("{start}*"))
            } else {
                pattern.cover_prefix(start)
            };
            let is_reached = match &cover.reach {
                Reach::All => true,
                Reach::Level(prefix) => pattern.level_tags(&key).contains(&level_tag(prefix)),
                Reach::Key(other) => *other == Key::new(&key),
                Reach::Nothing => false,
            };
            prop_assert!(is_reached, "{shape}: {start} does not reach {key}: {cover:?}");
        }

        /// An exact answer reaches no key that does not begin so.
        #[test]
        fn an_exact_answer_reaches_no_other(
            shape in prop::sample::select(vec!["a:{x}", "a:{x}:{y}", "a:{x}:b:{y}", "a:{x}:{y}:c"]),
            values in prop::collection::vec("[ab]{1,2}", 2),
            start in "a?:?[ab]{0,2}:?[ab]{0,2}",
        ) {
            let pattern = pattern(shape);
            let key = pattern.key(&values[..pattern.parameters().len()]);
            let cover = pattern.cover_prefix(&start);
            let is_reached = match &cover.reach {
                Reach::All => true,
                Reach::Level(prefix) => pattern.level_tags(&key).contains(&level_tag(prefix)),
                Reach::Key(other) => *other == Key::new(&key),
                Reach::Nothing => false,
            };
            prop_assert!(!cover.is_exact || is_reached == key.starts_with(&start), "{cover:?}");
        }
    }
}
