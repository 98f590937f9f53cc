//! Whatever stands in a configuration file: mistakes are named, with places
//! that lie within the text.

#![no_main]

use larder_server::config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let lines = String::from_utf8_lossy(bytes).lines().count() + 1;
    for diagnostic in config::fuzz(bytes).0 {
        assert!(!diagnostic.message.is_empty());
        assert!(diagnostic.line.is_none_or(|line| (1..=lines).contains(&line)), "{diagnostic}");
    }
});
