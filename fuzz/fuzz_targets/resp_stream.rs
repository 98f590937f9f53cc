//! Whatever a client of the RESP door sends, however it is cut into reads.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/resp_stream.rs"]
mod check;

fuzz_target!(|stream: &[u8]| check::check_stream(stream));
