//! A key pattern and a key, separated by a line break: parsing and matching
//! never panic, and the key that a pattern makes of values it matched is
//! matched to the same values again.
#![no_main]

use larder_core::KeyPattern;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (pattern, key) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(pattern) = pattern.parse::<KeyPattern>() else { return };
    let matched = pattern.match_key(key);
    assert_eq!(pattern.matches(key), matched.is_some());
    if let Some(values) = matched {
        let rebuilt = pattern.key(&values);
        assert_eq!(pattern.match_key(&rebuilt), Some(values), "{pattern} from {key:?}");
    }
});
