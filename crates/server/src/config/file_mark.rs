//! What tells that a file is another one than before.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

/// What tells that a file is another one than before: an editor may write it in
/// place or put a new one under its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileMark {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl FileMark {
    /// The mark of a file; `None` for what can be read only once, such as a pipe.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Option<Self> {
        metadata.is_file().then(|| Self {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            inode: metadata.ino(),
        })
    }
}
