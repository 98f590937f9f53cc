//! What values say they own, against what the allocator gave out for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use larder_core::{HeapSize, Key, Tags};
use serde_json::Value;
use tikv_jemalloc_ctl::thread;

#[track_caller]
fn check<T: HeapSize>(make: impl FnOnce() -> T) {
    check_up_to(1.25, make);
}

/// Holds the count of what `make` makes against the bytes that the allocator has
/// given this thread for it.
#[track_caller]
fn check_up_to<T: HeapSize>(most: f64, make: impl FnOnce() -> T) {
    let given = thread::allocatedp::read().expect("jemalloc counts by thread");
    let taken_back = thread::deallocatedp::read().expect("jemalloc counts by thread");
    let (given_before, back_before) = (given.get(), taken_back.get());
    let value = make();
    let allocated = (given.get() - given_before) as f64 - (taken_back.get() - back_before) as f64;
    let counted = value.heap_size() as f64;
    let what = std::any::type_name::<T>();
    // A budget that over-counts holds; one that under-counts does not.
    assert!(counted >= 0.95 * allocated, "{what}: {counted} counted, {allocated} allocated");
    assert!(counted <= most * allocated, "{what}: {counted} counted, {allocated} allocated");
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("the text is JSON")
}

/// An object with so many members.
fn object(members: usize) -> Value {
    let members: Vec<String> =
        (0..members).map(|number| format!(r#""column_{number}":{number}"#)).collect();
    json(&format!("{{{}}}", members.join(",")))
}

#[test]
fn json_counts_what_it_owns() {
    check(|| json(r#"{"a":1}"#));
    check(|| json(r#"{"id":1,"name":"Ann","email":"ann@example.org","n":1.5,"x":null}"#));
    check(|| json(r#"[{"a":1},{"a":1},{"a":1},{"a":1},{"a":1},{"a":1}]"#));
    check(|| json(r#"{"a":{"b":{"c":[1,2,3,"four"]}},"d":[]}"#));
    check(|| json("[]"));
    check(|| json("17"));
    check(|| serde_json::json!({"a": {"b": ["c", "d"]}}));
    for members in (1..40).chain([100, 448, 449, 1000, 10_000]) {
        check(|| object(members));
    }
}

#[test]
fn maps_count_what_they_own() {
    for len in [1, 3, 4, 7, 8, 11, 12, 18, 19, 100, 1000, 20_000_u64] {
        check(|| (0..len).map(|number| (number, number)).collect::<HashMap<_, _>>());
        check(|| {
            let text = |number: u64| format!("{number:020}");
            (0..len).map(|number| (text(number), text(number))).collect::<HashMap<_, _>>()
        });
        check(|| {
            let mut map = BTreeMap::new();
            map.extend((0..len).map(|number| (number, number)));
            map
        });
        check(|| {
            let mut map = BTreeMap::new();
            map.extend((0..len).map(|number| (number as u16, format!("{number:020}"))));
            map
        });
        // Keys in no order leave the nodes of a tree fuller than it is counted.
        check_up_to(1.35, || {
            let mut map = BTreeMap::new();
            let keys = (0..len).map(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            map.extend(keys.map(|key| (format!("{key:020}"), String::new())));
            map
        });
    }
    check(|| BTreeMap::from([("a".to_owned(), "b".to_owned())]));
}

#[test]
fn flat_values_count_what_they_own() {
    check(|| "x".repeat(1000));
    check(|| Arc::<str>::from("x".repeat(1000)));
    check(|| vec![vec![0_u16; 100]; 100]);
    check(|| Bytes::from(vec![0_u8; 100_000]));
    check(|| Box::new((String::from("a key"), Some(Arc::new([0_u64; 20])))));
    check(|| Key::from("customer:17"));
    check(|| Tags::NONE);
}
