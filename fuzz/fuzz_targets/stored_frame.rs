//! Whatever a store has under a key, packed values included.

#![no_main]

use std::time::Duration;

use bytes::Bytes;
use larder_core::Frame;
use libfuzzer_sys::fuzz_target;

/// What a store would let through.
const VALUE_BYTES_MAX: usize = 64 << 10;

fuzz_target!(|bytes: &[u8]| {
    let Ok(frame) = Frame::decode(&Bytes::copy_from_slice(bytes)) else { return };
    let Ok(Frame::Entry { entry, floor, read_at_micros, .. }) = frame.unpacked(VALUE_BYTES_MAX)
    else {
        return;
    };
    if let Some(value) = entry.value.as_option() {
        // What was not packed is as long as it is.
        assert!(value.len() <= VALUE_BYTES_MAX.max(bytes.len()), "{} bytes", value.len());
    }
    // All ones stand for "for ever" where time can be that: the longest cost is one less.
    if entry.load_cost >= Duration::from_micros(u64::MAX - 1) {
        return;
    }
    let again = Frame::encode_packed(&entry, floor, read_at_micros, Some(16));
    let again = Frame::decode(&Bytes::from(again.expect("it was decoded"))).expect("a frame");
    let again = again.unpacked(usize::MAX).expect("it was packed here");
    assert_eq!(again, Frame::Entry { entry, floor, read_at_micros, is_packed: false });
});
