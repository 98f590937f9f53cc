use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

/// fjall checks the blocks of its tables. It does not check the head of a batch
/// in its journal, which orders it among the others, takes a journal to end where
/// it cannot read on, and believes its list of tables. Any of these could bring
/// back an older value. So a directory that is closed is sealed: the checksum of
/// each file that is not a table, and the length of each that is. What does not
/// fit its seal is damaged.
///
/// After a crash there is no seal. Then the list of tables is compared with the
/// checksum that fjall wrote beside it, and a journal that was cut off is a
/// prefix of what was written; bits that flip in the head of a batch between the
/// crash and the next opening go unnoticed.
pub(crate) fn damage(data: &Path, seal: &Path) -> Option<String> {
    match fs::read(seal) {
        Ok(bytes) => sealed_damage(data, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => manifest_damage(data),
        Err(error) => Some(format!("the seal cannot be read: {error}")),
    }
}

/// What [`damage`] compares with: one line a file, then their checksum.
pub(crate) fn seal(data: &Path) -> io::Result<Vec<u8>> {
    let mut text = String::new();
    for (path, file) in files(data)? {
        let name = path.strip_prefix(data).unwrap_or(&path).to_string_lossy().into_owned();
        text.push_str(&format!("{} {:016x} {name}\n", file.length, file.checksum));
    }
    let checksum = xxh3_64(text.as_bytes());
    text.push_str(&format!("{checksum:016x}\n"));
    Ok(text.into_bytes())
}

struct FileMark {
    length: u64,
    /// Zero for a table.
    checksum: u64,
}

fn sealed_damage(data: &Path, sealed: &[u8]) -> Option<String> {
    match seal(data) {
        Ok(now) if now == sealed => None,
        Ok(_) => Some("files changed while the directory was closed".to_owned()),
        Err(error) => Some(format!("files cannot be read: {error}")),
    }
}

/// Compares each list of tables with the checksum in the file `current`: the
/// number of the list, its XXH3, and which checksum that is.
fn manifest_damage(data: &Path) -> Option<String> {
    let keyspaces = fs::read_dir(data.join("keyspaces")).ok()?;
    keyspaces.flatten().find_map(|keyspace| {
        let current = fs::read(keyspace.path().join("current")).ok()?;
        let (number, rest) = current.split_first_chunk::<8>()?;
        let (checksum, kind) = rest.split_first_chunk::<16>()?;
        let list = format!("v{}", u64::from_le_bytes(*number));
        let is_sound = kind == [0]
            && fs::read(keyspace.path().join(&list))
                .is_ok_and(|bytes| xxh3_128(&bytes).to_le_bytes() == *checksum);
        (!is_sound).then(|| format!("the list of tables {list} is damaged"))
    })
}

fn files(data: &Path) -> io::Result<BTreeMap<PathBuf, FileMark>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for file in fs::read_dir(&folder)? {
            let file = file?;
            if file.file_type()?.is_dir() {
                folders.push(file.path());
                continue;
            }
            let is_table = folder.ends_with("tables");
            let checksum = if is_table { 0 } else { file_checksum(&file.path())? };
            let length = file.metadata()?.len();
            found.insert(file.path(), FileMark { length, checksum });
        }
    }
    Ok(found)
}

fn file_checksum(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.digest()),
            length => hash.update(&buffer[..length]),
        }
    }
}
