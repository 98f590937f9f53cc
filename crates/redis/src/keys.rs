//! What keys and channels are called.

use larder_core::Key;

/// The names of one tier's keys.
///
/// Control keys share one slot of a cluster by their hash tag; entries and
/// leases lie where their own key leads.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: String,
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// A hash: epoch, version, floor, sequence, last message. One key, so that no
    /// part can be lost without the others.
    pub(crate) fn clock(&self) -> Vec<u8> {
        self.control("clock")
    }

    /// The messages.
    pub(crate) fn stream(&self) -> Vec<u8> {
        self.control("stream")
    }

    /// The watermarks of a cache: members by version.
    pub(crate) fn marks(&self, cache: &str) -> Vec<u8> {
        self.control(&format!("marks:{}", escape(cache)))
    }

    /// The watermarks of a cache: members by when they were raised.
    pub(crate) fn mark_times(&self, cache: &str) -> Vec<u8> {
        self.control(&format!("marktimes:{}", escape(cache)))
    }

    /// Where messages are pushed.
    pub(crate) fn channel(&self) -> Vec<u8> {
        self.control("bus")
    }

    /// A control key for trying rights.
    pub(crate) fn control_probe(&self, which: &str) -> Vec<u8> {
        self.control(&format!("probe:{which}"))
    }

    /// Where the release of leases is told.
    pub(crate) fn wakes(&self) -> Vec<u8> {
        format!("{}:wakes", self.prefix).into_bytes()
    }

    /// What every entry of a cache starts with.
    pub(crate) fn entries(&self, cache: &str) -> Vec<u8> {
        format!("{}:e:{}:", self.prefix, escape(cache)).into_bytes()
    }

    /// What every lease of a cache starts with.
    pub(crate) fn leases(&self, cache: &str) -> Vec<u8> {
        format!("{}:l:{}:", self.prefix, escape(cache)).into_bytes()
    }

    /// What every key of a journal starts with: they share a slot of a cluster,
    /// another one for each journal.
    pub(crate) fn journal(&self, name: &str) -> Vec<u8> {
        format!("{0}:journal:{{{0}.{name}}}:", self.prefix).into_bytes()
    }

    /// The pattern of every key and channel, for access control lists.
    pub(crate) fn patterns(&self) -> [String; 2] {
        [format!("{}:*", self.prefix), format!("{{{}}}:*", self.prefix)]
    }

    fn control(&self, name: &str) -> Vec<u8> {
        format!("{{{}}}:{name}", self.prefix).into_bytes()
    }
}

/// A key behind what all of its kind start with.
pub(crate) fn join(start: &[u8], key: &Key) -> Vec<u8> {
    [start, key.as_bytes()].concat()
}

/// A cache's name so that it can neither end early nor make a hash tag.
fn escape(cache: &str) -> String {
    let mut escaped = String::with_capacity(cache.len());
    for character in cache.chars() {
        match character {
            '%' => escaped.push_str("%25"),
            ':' => escaped.push_str("%3A"),
            '{' => escaped.push_str("%7B"),
            '}' => escaped.push_str("%7D"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use redis::cluster_routing::Slot;

    use super::*;

    #[test]
    fn no_two_caches_share_a_key() {
        let names = Names::new("larder");
        let one = join(&names.entries("a:b"), &Key::new("c"));
        let other = join(&names.entries("a"), &Key::new("b:c"));
        assert_ne!(one, other);
        assert_eq!(one, b"larder:e:a%3Ab:c");
    }

    #[test]
    fn control_keys_share_a_slot_and_entries_do_not() {
        let names = Names::new("larder");
        let slot = Slot::for_key(names.clock());
        let marks = names.marks("a{b}:c");
        for key in [names.stream(), marks, names.mark_times("x"), names.channel()] {
            assert_eq!(Slot::for_key(&key), slot, "{}", key.escape_ascii());
        }
        let entries = names.entries("a{b}c");
        let slots: std::collections::HashSet<Slot> =
            (0..100).map(|n| Slot::for_key(join(&entries, &Key::new(n.to_string())))).collect();
        assert!(slots.len() > 90, "{} slots for 100 keys", slots.len());
    }
}
