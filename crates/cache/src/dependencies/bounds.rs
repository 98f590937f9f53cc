use larder_core::{Error, ErrorKind, Result};

/// How far one change may be followed. Where a bound is hit, what lies beyond it is
/// invalidated in fewer words, and so more of it: never less.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CascadeBounds {
    /// So many dependencies in a row are followed. Whatever lies beyond is touched as
    /// a whole, cache by cache.
    pub depth: usize,
    /// So many keys of one cache are touched; of more, the whole cache is.
    pub keys: usize,
    /// So many tags of one cache are touched; of more, the whole cache is.
    pub tags: usize,
    /// So many keys and tags are touched in all. Whatever else may be is touched as a
    /// whole, cache by cache.
    pub total: usize,
}

impl Default for CascadeBounds {
    fn default() -> Self {
        Self { depth: 32, keys: 1024, tags: 256, total: 65_536 }
    }
}

impl CascadeBounds {
    /// The same with another depth.
    #[must_use]
    pub const fn depth(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }

    /// The same with another number of keys of one cache.
    #[must_use]
    pub const fn keys(mut self, keys: usize) -> Self {
        self.keys = keys;
        self
    }

    /// The same with another number of tags of one cache.
    #[must_use]
    pub const fn tags(mut self, tags: usize) -> Self {
        self.tags = tags;
        self
    }

    /// The same with another number of keys and tags in all.
    #[must_use]
    pub const fn total(mut self, total: usize) -> Self {
        self.total = total;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        if [self.depth, self.keys, self.tags, self.total].contains(&0) {
            return Err(Error::new(ErrorKind::Config, "a bound of zero follows no dependency")
                .remedy("give depth, keys, tags and total at least 1 each"));
        }
        Ok(())
    }
}

/// A bound that a cascade met.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum CascadeBound {
    /// [`CascadeBounds::depth`]: what depends on the node was touched as a whole.
    Depth,
    /// [`CascadeBounds::keys`]: the node was touched as a whole.
    Keys,
    /// [`CascadeBounds::tags`]: the node was touched as a whole.
    Tags,
    /// [`CascadeBounds::total`]: what depends on the node was touched as a whole.
    Total,
}

impl CascadeBound {
    /// The name, as [`CascadeBounds`] has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Depth => "depth",
            Self::Keys => "keys",
            Self::Tags => "tags",
            Self::Total => "total",
        }
    }
}
