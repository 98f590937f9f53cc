use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use larder_core::{Error, ErrorKind, Result};
use parking_lot::Mutex;

use crate::seal;

/// The directory of a tier, while this process has it.
///
/// | name | |
/// |---|---|
/// | `lock` | locked by the process that uses the directory |
/// | `data` | what fjall writes |
/// | `dropped` | data on its way out |
/// | `seal` | checksums, there only while the directory is closed |
/// | `opening` | how many openings in a row did not come to an end |
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Until it is released.
    lock: Mutex<Option<File>>,
}

/// fjall can be made to end the process by files that are damaged in the right
/// way. Whoever starts it again shall get further.
const UNFINISHED_OPENINGS_MAX: u8 = 2;

impl Directory {
    /// Makes the directory if it is not there and takes it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if another process has it or it cannot be used.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let failed = |error| unusable(path, error);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), lock: Mutex::new(Some(lock)) }),
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(ErrorKind::Config, "another process uses the disk tier's directory")
                    .with("directory", path.display())
                    .remedy("give each process a directory of its own, or stop the other one"))
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Where fjall's files are.
    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Notes that an opening begins, makes the place for the data, and says what
    /// is known to be damaged.
    pub(crate) fn begin_opening(&self) -> Result<Option<String>> {
        let failed = |error| unusable(&self.path, error);
        let before = fs::read(self.path.join("opening")).unwrap_or_default();
        let unfinished = before.first().copied().unwrap_or(0);
        write_private(&self.path.join("opening"), &[unfinished.saturating_add(1)])
            .map_err(failed)?;
        self.drop_rest()?;
        self.make_data()?;
        if unfinished >= UNFINISHED_OPENINGS_MAX {
            return Ok(Some(format!("{unfinished} openings in a row did not come to an end")));
        }
        let damage = seal::damage(&self.data(), &self.path.join("seal"));
        match fs::remove_file(self.path.join("seal")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        // A seal that came back after a power loss would fit nothing any more.
        File::open(&self.path).and_then(|path| path.sync_all()).map_err(failed)?;
        Ok(damage)
    }

    /// Notes that the opening came to an end.
    pub(crate) fn end_opening(&self) -> Result<()> {
        fs::remove_file(self.path.join("opening")).map_err(|error| unusable(&self.path, error))
    }

    /// Drops all data, in one step: a part of it could be older than the whole.
    pub(crate) fn clear(&self) -> Result<()> {
        self.drop_rest()?;
        match fs::rename(self.data(), self.path.join("dropped")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(unusable(&self.path, error));
            }
            _ => self.drop_rest()?,
        }
        self.make_data()
    }

    /// Lets another process have it.
    pub(crate) fn release(&self) {
        self.lock.lock().take();
    }

    /// Writes the checksums of a closed directory.
    pub(crate) fn seal(&self) -> io::Result<()> {
        let bytes = seal::seal(&self.data())?;
        let unfinished = self.path.join("seal.new");
        write_private(&unfinished, &bytes)?;
        fs::rename(unfinished, self.path.join("seal"))
    }

    /// Bytes that the journals take on the disk; of what fjall reserves ahead
    /// only what was written counts.
    pub(crate) fn journal_bytes(&self) -> u64 {
        let Ok(files) = fs::read_dir(self.data()) else { return 0 };
        let journals = files
            .flatten()
            .filter(|file| file.path().extension().is_some_and(|extension| extension == "jnl"));
        journals.filter_map(|file| file.metadata().ok()).map(|file| file.blocks() * 512).sum()
    }

    fn drop_rest(&self) -> Result<()> {
        match fs::remove_dir_all(self.path.join("dropped")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(unusable(&self.path, error))
            }
            _ => Ok(()),
        }
    }

    fn make_data(&self) -> Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.data())
            .map_err(|error| unusable(&self.path, error))
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use io::Write;

    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn unusable(path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Config, "the disk tier's directory cannot be used")
        .with("directory", path.display())
        .caused_by(error)
        .remedy("make it a directory that this user can write to, with room on its disk")
}
