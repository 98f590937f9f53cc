//! The files of a journal, and of whoever else appends to files that survive a
//! crash, behind a seam that a simulated disk can stand at.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use larder_core::{Error, ErrorKind, Result};
use rustix::fs::{Advice, fadvise};

/// A flat directory of files. Nothing is durable before a sync: not what is in a
/// file before [`LogFile::sync`], and not its name before [`Files::sync_names`].
pub trait Files: Send + 'static {
    /// A file that is written.
    type File: LogFile;

    /// The names of all files.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Makes a file, or empties the one that is there.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file that is there, to go on writing it.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Syncs a file that nobody writes any more and reads what the disk has of
    /// it, not what a cache shows.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Gives a file another name in one step.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable.
    fn sync_names(&self) -> io::Result<()>;
}

/// A file that is written.
pub trait LogFile: Send + 'static {
    /// Writes all of these bytes at an offset.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file off.
    fn truncate(&mut self, length: u64) -> io::Result<()>;

    /// Makes what was written durable. After a failure nothing is known of what
    /// the disk has.
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory of the machine, while this process has it.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Held for as long as this is there.
    _lock: File,
}

const LOCK: &str = "lock";

impl Directory {
    /// Makes the directory if it is not there and takes it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if another process has it or it cannot be used.
    pub fn take(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let failed = |error| unusable(&path, error);
        make_durable(&path).map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(ErrorKind::Config, "another process uses the directory")
                    .with("directory", path.display())
                    .remedy("give each process a directory of its own, or stop the other one"))
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

impl Files for Directory {
    type File = File;

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for file in fs::read_dir(&self.path)? {
            names.extend(file?.file_name().into_string());
        }
        names.retain(|name| name != LOCK);
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600).open(self.path.join(name))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.path.join(name))
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        file.sync_all()?;
        // Pages whose writing failed are shown as if they had been written.
        fadvise(&file, 0, None, Advice::DontNeed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl LogFile for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.sync_data()
    }
}

/// Makes the directory, and its name durable in each directory that had to be
/// made above it.
fn make_durable(path: &Path) -> io::Result<()> {
    let missing =
        path.ancestors().take_while(|part| !part.as_os_str().is_empty() && !part.exists());
    let missing: Vec<&Path> = missing.collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    for part in missing {
        let above = part.parent().filter(|above| !above.as_os_str().is_empty());
        File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

fn unusable(path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Config, "the directory cannot be used")
        .with("directory", path.display())
        .caused_by(error)
        .remedy("make it a directory that this user can write to, with room on its disk")
}
