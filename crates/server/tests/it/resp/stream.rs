//! The check that the fuzz target `resp_stream` runs, over its seeds and over
//! random changes of them: on any toolchain and with every `cargo test`.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;

#[path = "../../../../../fuzz/checks/resp_stream.rs"]
mod check;

fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/resp_stream");
    let files = std::fs::read_dir(&folder).expect("the seeds are in the repository");
    let seeds: Vec<Vec<u8>> = files
        .map(|file| std::fs::read(file.expect("the folder can be read").path()))
        .collect::<Result<_, _>>()
        .expect("the seeds can be read");
    assert!(seeds.len() >= 5, "{} holds too few seeds", folder.display());
    seeds
}

#[test]
fn seeds_pass() {
    for seed in seeds() {
        check::check_stream(&seed);
    }
}

proptest! {
    #[test]
    fn changed_seeds_pass(
        seed in any::<Index>(),
        changes in proptest::collection::vec((any::<Index>(), any::<u8>(), 0..4_u8), 0..12),
    ) {
        let seeds = seeds();
        let mut stream = seed.get(&seeds).clone();
        for (place, byte, kind) in changes {
            let place = place.index(stream.len() + 1);
            match kind {
                0 => stream.insert(place, byte),
                1 if place < stream.len() => stream[place] = byte,
                2 => stream.truncate(place),
                _ => stream.extend_from_within(..place),
            }
            stream.truncate(1 << 16);
        }
        check::check_stream(&stream);
    }
}
