//! Files are damaged, in every way and at many places: never a wrong value, and
//! the tier always opens.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use larder_core::{Mark, PutOutcome, Store, StoredEntry, Tag, Ttl, Verb, Version};
use larder_disk::{DiskOptions, DiskStore, DiskTier};
use larder_testkit::conformance::{block_on, store::entry};
use tempfile::TempDir;

use crate::support::{Home, heard, key, put, remove, text};

const KEYS: u64 = 120;

/// A closed directory with entries in tables and in the journal, and each key
/// changed more than once.
async fn written() -> TempDir {
    let home = Home::open().await;
    write_round(&home.store, 1).await;
    home.tier.compact().await.expect("a compaction");
    let home = home.reopen().await;
    write_round(&home.store, 2).await;
    home.tier.compact().await.expect("a compaction");
    write_round(&home.store, 3).await;
    home.store.note_heard(heard(3)).await.expect("a position");
    home.close().await
}

/// Key `n` is put in each round, and removed after the put in round `n % 4`.
async fn write_round(store: &DiskStore, round: u64) {
    for n in 0..KEYS {
        put(store, &n.to_string(), lasting(&value(n, round), round * 10)).await.expect("a put");
        if n % 4 == round {
            remove(store, &n.to_string(), round * 10 + 1).await;
        }
    }
    let mark = Mark { tag: Some(Tag::new("t")), verb: Verb::Remove, version: Version::new(round) };
    store.mark(&[mark]).await.expect("a watermark");
}

/// An entry that does not end before the test does.
fn lasting(text: &str, version: u64) -> StoredEntry {
    StoredEntry { stale_for: Ttl::secs(24 * 3600), ..entry(text, version) }
}

fn value(n: u64, round: u64) -> String {
    format!("{n}:{round}:").repeat(40 + n as usize)
}

/// What is right to read: the last put, or nothing where it was removed after.
fn is_current(n: u64, read: Option<&str>) -> bool {
    read.is_none_or(|read| n % 4 != 3 && read == value(n, 3))
}

/// What was right to read once.
fn was_current(n: u64, read: Option<&str>) -> bool {
    read.is_none_or(|read| (1..=3).any(|round| read == value(n, round)))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder).expect("a folder").flatten() {
        if file.path().is_dir() {
            found.extend(files(&file.path()));
        } else {
            found.push(file.path());
        }
    }
    found.sort();
    found
}

/// A closed directory, from which copies are made.
struct Original(Vec<OriginalFile>);

struct OriginalFile {
    name: PathBuf,
    /// Without the zeros at the end, which fjall reserves in its journal.
    written: Vec<u8>,
    length: u64,
}

impl Original {
    fn read(directory: &Path) -> Self {
        let read = |file: PathBuf| {
            let mut written = fs::read(&file).expect("a file");
            let length = written.len() as u64;
            let end = written.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            written.truncate(end);
            let name = file.strip_prefix(directory).expect("it is inside").to_owned();
            OriginalFile { name, written, length }
        };
        Self(files(directory).into_iter().map(read).collect())
    }

    fn copy(&self) -> TempDir {
        let to = TempDir::new().expect("a temporary directory");
        for file in &self.0 {
            let path = to.path().join(&file.name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(&path, &file.written).expect("a file");
            let copied = fs::File::options().write(true).open(&path).expect("a file");
            copied.set_len(file.length).expect("its length");
        }
        to
    }

    /// A copy with one of the files damaged.
    fn damaged(&self, file: &OriginalFile, how: Damage, random: &mut fastrand::Rng) -> TempDir {
        let copy = self.copy();
        damage(&copy.path().join(&file.name), &file.written, how, random);
        copy
    }
}

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(f64),
    Zero(f64),
    Truncate(f64),
    Append,
    Delete,
}

/// Damages a file, at a part of what was written into it.
fn damage(path: &Path, bytes: &[u8], damage: Damage, random: &mut fastrand::Rng) {
    let written = bytes.len();
    let file = fs::File::options().write(true).open(path).expect("a file");
    let at = |part: f64| ((written as f64 * part) as u64).min(written.saturating_sub(1) as u64);
    match damage {
        Damage::Flip(part) if written > 0 => {
            let flipped = bytes[at(part) as usize] ^ (1 << random.u8(..8));
            file.write_all_at(&[flipped], at(part)).expect("a write");
        }
        Damage::Zero(part) if written > 0 => {
            let length = (written - at(part) as usize).min(512);
            file.write_all_at(&vec![0; length], at(part)).expect("a write");
        }
        Damage::Truncate(part) => file.set_len(at(part)).expect("a length"),
        Damage::Delete => fs::remove_file(path).expect("a file"),
        Damage::Append | Damage::Flip(_) | Damage::Zero(_) => {
            file.write_all_at(b"what is this", bytes.len() as u64).expect("a write");
        }
    }
}

fn damages(random: &mut fastrand::Rng, count: usize) -> Vec<Damage> {
    let mut damages = vec![Damage::Truncate(0.0), Damage::Append, Damage::Delete];
    for _ in 0..count {
        damages.push(Damage::Flip(random.f64()));
        damages.push(Damage::Zero(random.f64()));
        damages.push(Damage::Truncate(random.f64()));
    }
    damages
}

/// Damages each file of a copy in each way, opens it and reads. Returns how
/// often it was noticed, of how many.
fn sweep(is_sealed: bool, is_right: fn(u64, Option<&str>) -> bool) -> (u32, u32) {
    let count = if std::env::var_os("LARDER_FULL").is_some() { 10 } else { 2 };
    let mut random = fastrand::Rng::with_seed(11);
    block_on(async {
        let directory = written().await;
        if !is_sealed {
            fs::remove_file(directory.path().join("seal")).expect("it was closed");
        }
        let original = Original::read(directory.path());
        let (mut noticed, mut all) = (0, 0);
        for file in &original.0 {
            for how in damages(&mut random, count) {
                let damaged = original.damaged(file, how, &mut random);
                let label = format!("{} after {how:?}", file.name.display());
                noticed += u32::from(check(damaged.path(), &label, is_right).await);
                all += 1;
            }
        }
        (noticed, all)
    })
}

/// Opens, reads every key and writes again. Returns whether damage was noticed.
async fn check(directory: &Path, label: &str, is_right: fn(u64, Option<&str>) -> bool) -> bool {
    let opened = DiskTier::open(DiskOptions::new(directory)).await;
    let tier = opened.unwrap_or_else(|error| panic!("{label}: it does not open: {error}"));
    let store = tier.store("album").expect("a name");
    for n in 0..KEYS {
        let read = text(&store, &n.to_string()).await;
        assert!(is_right(n, read.as_deref()), "{label}: key {n}: {read:?}");
    }
    let heard = store.heard().await.expect("the position");
    if heard.is_some_and(|heard| heard.position.sequence == 3) {
        // Whoever is so far has seen every invalidation.
        for n in 0..KEYS {
            let read = text(&store, &n.to_string()).await;
            assert!(is_current(n, read.as_deref()), "{label}: key {n} is old: {read:?}");
        }
    }
    let version = tier.highest_version().get() + 100;
    for n in 0..KEYS {
        let outcome = put(&store, &n.to_string(), lasting("new", version)).await.expect("a put");
        assert_eq!(outcome, PutOutcome::Stored, "{label}: key {n}");
        assert_eq!(text(&store, &n.to_string()).await.as_deref(), Some("new"), "{label}");
    }
    let noticed = tier.healed() || tier.statistics().damaged_count > 0;
    tier.close().await;
    noticed
}

#[test]
fn a_closed_directory_that_is_damaged_gives_no_old_value() {
    let (noticed, all) = sweep(true, is_current);
    eprintln!("{all} damages to a closed directory: {noticed} noticed, none served");
    assert!(noticed > all / 2);
}

#[test]
fn a_directory_that_is_damaged_after_a_crash_gives_no_wrong_value() {
    let (noticed, all) = sweep(false, was_current);
    eprintln!("{all} damages after a crash: {noticed} noticed, none served");
}

/// After a power loss the journal may end anywhere. What is found is what was
/// written up to some change, and the position says up to which.
#[test]
fn a_journal_that_is_cut_off_anywhere_leaves_a_prefix() {
    const CHANGES: u64 = 300;
    let change = |number: u64| (number * 7 % 10, number.is_multiple_of(3));
    let cuts = if std::env::var_os("LARDER_FULL").is_some() { 400 } else { 40 };
    block_on(async {
        let home = Home::open().await;
        for number in 1..=CHANGES {
            let (place, removes) = change(number);
            if removes {
                remove(&home.store, &place.to_string(), number).await;
            } else {
                let entry = lasting(&value(place, number), number);
                put(&home.store, &place.to_string(), entry).await.expect("a put");
            }
            home.store.note_heard(heard(number)).await.expect("a position");
            if number == CHANGES / 3 {
                home.tier.compact().await.expect("a compaction");
            }
        }
        let directory = home.close().await;
        fs::remove_file(directory.path().join("seal")).expect("it was closed");
        let original = Original::read(directory.path());
        let is_journal = |file: &&OriginalFile| file.name.ends_with("0.jnl");
        let journal = original.0.iter().find(is_journal).expect("it has a journal");
        let mut random = fastrand::Rng::with_seed(5);
        let mut found = std::collections::BTreeSet::new();
        for _ in 0..cuts {
            let how = Damage::Truncate(random.f64());
            let cut = original.damaged(journal, how, &mut random);
            let home = Home::open_in(cut, |_| ()).await;
            let heard = home.store.heard().await.expect("the position");
            let reached = heard.map_or(0, |heard| heard.position.sequence);
            let mut matches = [true; 2];
            for place in 0..10 {
                let read = text(&home.store, &place.to_string()).await;
                for (further, matches) in matches.iter_mut().enumerate() {
                    let last =
                        (1..=reached + further as u64).rfind(|number| change(*number).0 == place);
                    let expected = last.filter(|number| !change(*number).1);
                    *matches &= read == expected.map(|number| value(place, number));
                }
            }
            // The change after the position may have come without its position.
            assert!(matches.contains(&true), "cut behind {reached}");
            assert!(!home.tier.healed());
            found.insert(reached);
        }
        eprintln!("{cuts} cuts left {} different prefixes", found.len());
        assert!(found.len() > 10 && found.first() >= Some(&(CHANGES / 3)), "{found:?}");
    });
}

#[test]
fn a_directory_whose_opening_never_ends_is_given_up() {
    block_on(async {
        let directory = written().await;
        fs::write(directory.path().join("opening"), [1]).expect("a file");
        let home = Home::open_in(directory, |_| ()).await;
        assert!(!home.tier.healed(), "once is a chance");
        let directory = home.close().await;
        fs::write(directory.path().join("opening"), [2]).expect("a file");
        let home = Home::open_in(directory, |_| ()).await;
        assert!(home.tier.healed());
        assert_eq!(text(&home.store, "1").await, None);
        put(&home.store, "1", entry("new", 1)).await.expect("a put");
        let home = home.reopen().await;
        assert!(!home.tier.healed());
        assert_eq!(text(&home.store, "1").await.as_deref(), Some("new"));
    });
}

#[test]
fn what_breaks_while_it_runs_is_dropped_and_what_was_invalidated_stays_so() {
    block_on(async {
        let directory = written().await;
        // Blocks of tables are checked when they are read, not before.
        for file in files(directory.path()) {
            let is_table = file.parent().is_some_and(|folder| folder.ends_with("tables"));
            if is_table && fs::metadata(&file).expect("a file").len() > 20_000 {
                let bytes = fs::read(&file).expect("a file");
                damage(&file, &bytes, Damage::Flip(0.3), &mut fastrand::Rng::with_seed(3));
            }
        }
        let home = Home::open_in(directory, |_| ()).await;
        let mark = Mark { tag: None, verb: Verb::Remove, version: Version::new(50) };
        home.store.mark(std::slice::from_ref(&mark)).await.expect("a watermark");
        remove(&home.store, "0", 60).await;
        home.store.note_heard(heard(60)).await.expect("a position");
        // Compaction cannot get past a damaged block.
        assert!(home.tier.compact().await.is_err());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !home.tier.healed() {
            assert!(std::time::Instant::now() < deadline, "it does not heal");
            let _ = home.store.get(&key("1")).await;
        }
        let late = put(&home.store, "0", entry("late", 59)).await.expect("a put");
        assert_eq!(late, PutOutcome::Refused(Version::new(60)), "a load that began before");
        assert!(home.store.marks().await.expect("the watermarks").contains(&mark));
        put(&home.store, "0", entry("new", 60)).await.expect("a put");
        let home = home.reopen().await;
        assert_eq!(text(&home.store, "0").await.as_deref(), Some("new"));
        assert_eq!(text(&home.store, "1").await, None);
        assert!(home.store.marks().await.expect("the watermarks").contains(&mark));
        assert_eq!(home.store.heard().await.expect("the position"), Some(heard(60)));
        assert_eq!(home.store.highest_version(), Version::new(60));
    });
}
