//! A disk that keeps its promises and no more, and can fail at any call.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use larder_journal::files::{Files, LogFile};

/// Clones are the same disk.
#[derive(Clone)]
pub(crate) struct SimulatedDisk(Arc<Mutex<World>>);

struct World {
    files: Vec<Contents>,
    /// What a running process sees.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    calls: u64,
    /// What goes wrong at which call.
    faults: BTreeMap<u64, Fault>,
    /// The next sync of a file that is written fails.
    fails_next_sync: bool,
    /// From now on every call fails: the process is gone.
    is_down: bool,
    random: Rng,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// The call fails, and may have done a part of what it was to do.
    Io,
    /// There is no room.
    Full,
    /// The machine stops in the middle of the call.
    Crash,
}

#[derive(Clone, Default)]
struct Contents {
    visible: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Clone)]
enum NameChange {
    Create(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

/// What of the changes that are not durable a crash leaves.
#[derive(Clone, Copy)]
enum Leaves {
    Nothing,
    /// As the end of the process alone does.
    All,
    /// Up to any byte.
    Prefix,
    /// Any sectors, in any order.
    Sectors,
}

const SECTOR: usize = 512;

impl SimulatedDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            calls: 0,
            faults: BTreeMap::new(),
            fails_next_sync: false,
            is_down: false,
            random: Rng::with_seed(seed),
        })))
    }

    /// Lets this happen at a call, counted from now.
    pub(crate) fn fail_at(&self, call: u64, fault: Fault) {
        let mut world = self.world();
        let at = world.calls + call;
        world.faults.insert(at, fault);
    }

    pub(crate) fn fail_next_sync(&self) {
        self.world().fails_next_sync = true;
    }

    pub(crate) fn heal(&self) {
        self.world().faults.clear();
    }

    pub(crate) fn calls(&self) -> u64 {
        self.world().calls
    }

    pub(crate) fn is_down(&self) -> bool {
        self.world().is_down
    }

    /// What is on the disk when the machine starts again.
    pub(crate) fn restart(&self) -> Self {
        let mut world = self.world();
        let mut random = world.random.fork();
        let leaves = match random.u8(..4) {
            0 => Leaves::Nothing,
            1 => Leaves::All,
            2 => Leaves::Prefix,
            _ => Leaves::Sectors,
        };
        let mut names = world.durable_names.clone();
        for change in &world.pending_names {
            let is_left = match leaves {
                Leaves::Nothing => false,
                Leaves::All => true,
                _ => random.bool(),
            };
            if is_left {
                change_name(&mut names, change);
            }
        }
        let files: Vec<Contents> = world
            .files
            .iter()
            .map(|file| {
                let bytes = after_crash(file, leaves, &mut random);
                Contents { visible: bytes.clone(), durable: bytes, pending: Vec::new() }
            })
            .collect();
        let random = world.random.fork();
        Self(Arc::new(Mutex::new(World {
            files,
            names: names.clone(),
            durable_names: names,
            pending_names: Vec::new(),
            calls: 0,
            faults: BTreeMap::new(),
            fails_next_sync: false,
            is_down: false,
            random,
        })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    /// Counts a call, and says what goes wrong with it.
    fn call(&mut self) -> Option<Fault> {
        self.calls += 1;
        if self.is_down {
            return Some(Fault::Io);
        }
        let fault = self.faults.remove(&self.calls);
        self.is_down |= fault == Some(Fault::Crash);
        fault
    }

    /// Whether a call that fails has done what it was to do.
    fn was_done(&mut self) -> bool {
        !self.is_down && self.random.bool()
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_names(&mut self, change: NameChange, fault: Option<Fault>) -> io::Result<()> {
        let was_done = fault.is_none() || fault == Some(Fault::Crash) || self.was_done();
        if was_done && (!self.is_down || fault.is_some()) {
            change_name(&mut self.names, &change);
            self.pending_names.push(change);
        }
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }

    fn sync_file(&mut self, file: usize, fault: Option<Fault>) -> io::Result<()> {
        let mut random = self.random.fork();
        let is_down = self.is_down;
        let contents = &mut self.files[file];
        match fault {
            None => {
                let all = after_crash(contents, Leaves::All, &mut random);
                contents.durable = all;
                contents.pending.clear();
                Ok(())
            }
            Some(fault) => {
                if !is_down {
                    // A part is on the disk. The rest never will be, however often
                    // it is synced, although it can be read until the page goes.
                    contents.durable = after_crash(contents, Leaves::Sectors, &mut random);
                    contents.pending.clear();
                }
                Err(error(fault))
            }
        }
    }
}

fn change_name(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Create(name, file) => drop(names.insert(name.clone(), *file)),
        NameChange::Rename(from, to, file) => {
            names.remove(from);
            names.insert(to.clone(), *file);
        }
        NameChange::Remove(name) => drop(names.remove(name)),
    }
}

fn after_crash(file: &Contents, leaves: Leaves, random: &mut Rng) -> Vec<u8> {
    let mut bytes = file.durable.clone();
    for (index, change) in file.pending.iter().enumerate() {
        match (change, leaves) {
            (_, Leaves::Nothing) => {}
            (Change::Truncate(length), _) => {
                if matches!(leaves, Leaves::All) || random.bool() {
                    bytes.resize(*length, 0);
                }
            }
            (Change::Write(at, written), Leaves::All) => lay(&mut bytes, *at, written),
            (Change::Write(at, written), Leaves::Prefix) => {
                let is_last = index + 1 == file.pending.len();
                let length = if is_last { random.usize(..=written.len()) } else { written.len() };
                lay(&mut bytes, *at, &written[..length]);
            }
            (Change::Write(at, written), Leaves::Sectors) => {
                let mut from = 0;
                while from < written.len() {
                    let to = written.len().min(from + SECTOR - (at + from) % SECTOR);
                    if random.bool() {
                        lay(&mut bytes, at + from, &written[from..to]);
                    }
                    from = to;
                }
            }
        }
    }
    bytes
}

fn lay(bytes: &mut Vec<u8>, at: usize, written: &[u8]) {
    let end = at + written.len();
    bytes.resize(bytes.len().max(end), 0);
    bytes[at..end].copy_from_slice(written);
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Full => io::ErrorKind::StorageFull.into(),
        Fault::Io | Fault::Crash => io::Error::other("the simulated disk fails"),
    }
}

impl Files for SimulatedDisk {
    type File = SimulatedFile;

    fn names(&self) -> io::Result<Vec<String>> {
        let mut world = self.world();
        match world.call() {
            Some(fault) => Err(error(fault)),
            None => Ok(world.names.keys().cloned().collect()),
        }
    }

    fn create(&self, name: &str) -> io::Result<SimulatedFile> {
        let mut world = self.world();
        let fault = world.call();
        let file = world.files.len();
        world.files.push(Contents::default());
        world.change_names(NameChange::Create(name.to_owned(), file), fault)?;
        Ok(SimulatedFile { disk: self.clone(), file })
    }

    fn open(&self, name: &str) -> io::Result<SimulatedFile> {
        let mut world = self.world();
        match world.call() {
            Some(fault) => Err(error(fault)),
            None => Ok(SimulatedFile { disk: self.clone(), file: world.file(name)? }),
        }
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut world = self.world();
        let fault = world.call();
        let file = world.file(name)?;
        world.sync_file(file, fault)?;
        let contents = &mut world.files[file];
        contents.visible = contents.durable.clone();
        Ok(contents.visible.clone())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        let fault = world.call();
        let file = world.file(from)?;
        world.change_names(NameChange::Rename(from.to_owned(), to.to_owned(), file), fault)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        let fault = world.call();
        world.file(name)?;
        world.change_names(NameChange::Remove(name.to_owned()), fault)
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut world = self.world();
        let fault = world.call();
        if world.is_down {
            return Err(error(Fault::Io));
        }
        let pending = std::mem::take(&mut world.pending_names);
        for change in pending {
            // After a failure some of them never become durable.
            if fault.is_none() || world.random.bool() {
                change_name(&mut world.durable_names, &change);
            }
        }
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }
}

pub(crate) struct SimulatedFile {
    disk: SimulatedDisk,
    file: usize,
}

impl LogFile for SimulatedFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        let fault = world.call();
        if fault == Some(Fault::Io) && world.is_down {
            return Err(error(Fault::Io));
        }
        let length = match fault {
            None => bytes.len(),
            Some(_) => world.random.usize(..=bytes.len()),
        };
        let at = usize::try_from(offset).expect("it is small");
        let contents = &mut world.files[self.file];
        lay(&mut contents.visible, at, &bytes[..length]);
        contents.pending.push(Change::Write(at, bytes[..length].to_vec()));
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        let fault = world.call();
        let length = usize::try_from(length).expect("it is small");
        if fault.is_none() || world.was_done() {
            let contents = &mut world.files[self.file];
            contents.visible.resize(length, 0);
            contents.pending.push(Change::Truncate(length));
        }
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut world = self.disk.world();
        let fails = std::mem::take(&mut world.fails_next_sync);
        let fault = world.call().or(fails.then_some(Fault::Io));
        world.sync_file(self.file, fault)
    }
}
