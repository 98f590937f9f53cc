//! Whatever stands in a file of a journal.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| larder_journal::check_segment(bytes));
