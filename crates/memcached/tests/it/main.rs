//! The client, the store and the lease against real memcached servers.

mod ages;
mod client;
mod control;
mod faults;
mod lease;
mod login;
mod probe;
mod proxied;
mod scripted;
mod store;
mod support;

/// What the fuzzer looks for, tried on the seeds that it begins with.
#[path = "../../../../fuzz/checks/memcached_reply.rs"]
mod check_reply;

#[test]
fn the_seeds_of_the_fuzzer_hold() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/memcached_reply");
    let seeds = std::fs::read_dir(seeds).expect("the seeds are there");
    let streams = seeds.map(|seed| std::fs::read(seed.expect("a file").path()).expect("readable"));
    let streams: Vec<Vec<u8>> = streams.collect();
    assert!(streams.len() >= 5);
    streams.iter().for_each(|stream| check_reply::check_stream(stream));
}
