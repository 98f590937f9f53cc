//! Whatever a memcached answers, however it is cut into reads.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/memcached_reply.rs"]
mod check;

fuzz_target!(|stream: &[u8]| check::check_stream(stream));
