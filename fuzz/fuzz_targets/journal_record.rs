//! Whatever stands in a journal where a record should.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/journal_record.rs"]
mod check;

fuzz_target!(|bytes: &[u8]| check::check_record(bytes));
