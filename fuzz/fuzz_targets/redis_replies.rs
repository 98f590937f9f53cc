//! Whatever the Redis behind this server sends, however it is cut into reads.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|stream: &[u8]| larder_server::front::fuzz(stream));
