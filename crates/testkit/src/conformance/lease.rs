//! What every [`Lease`] must do. Each function is one case and expects leases
//! that no other case uses, or uses keys of its own among shared ones.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::{Key, Lease, LeaseGrant, LeaseToken};

/// Longer than any case takes.
const LONG: Duration = Duration::from_secs(300);
/// Within which everything happens that is to happen, on a busy machine, too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs every case of the suite as a test of its own against new leases.
///
/// The second argument is an expression for a future that makes the
/// [`Lease`]; it runs inside the test's runtime, once for each case.
///
/// ```no_run
/// # use larder_testkit::faulty::FaultyLease;
/// larder_testkit::lease_conformance!(in_memory, async { FaultyLease::new() });
/// ```
#[macro_export]
macro_rules! lease_conformance {
    ($name:ident, $lease:expr) => {
        $crate::lease_conformance! { @cases $name, $lease,
            a_free_key_is_granted_and_a_held_one_tells_how_long
            answers_come_in_the_order_asked
            a_key_asked_twice_is_granted_once
            keys_are_any_bytes
            a_release_frees_the_key
            a_wrong_token_releases_nothing
            what_runs_out_is_free_and_its_token_is_dead
            no_two_grants_have_one_token
            of_many_askers_one_is_granted
            a_release_wakes_who_waits
            a_wait_ends_in_time
            a_dropped_wait_leaves_nothing_behind
            nothing_to_do_is_done
        }
    };
    (@cases $name:ident, $lease:expr, $($case:ident)*) => {
        mod $name {
            #[allow(unused_imports, reason = "the expression may name what its module imports")]
            use super::*;
            $(
                #[test]
                fn $case() {
                    $crate::conformance::block_on(async {
                        $crate::conformance::lease::$case($lease.await).await;
                    });
                }
            )*
        }
    };
}

/// Whoever is not granted it knows how long to wait at most, and that shrinks.
pub async fn a_free_key_is_granted_and_a_held_one_tells_how_long<L: Lease>(lease: L) {
    let key = Key::new("conformance:lease:held");
    grant(&lease, &key, LONG).await;
    let first = held(&lease, &key).await;
    assert!(!first.is_zero() && first <= LONG, "{first:?} of {LONG:?}");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let second = held(&lease, &key).await;
    assert!(second < first, "{second:?} after {first:?}");
}

/// Granted and held ones mixed.
pub async fn answers_come_in_the_order_asked<L: Lease>(lease: L) {
    let keys: Vec<Key> =
        (0..100).map(|n| Key::new(format!("conformance:lease:order:{n}"))).collect();
    let odd: Vec<Key> = keys.iter().skip(1).step_by(2).cloned().collect();
    let grants = lease.acquire_many(&odd, LONG).await.expect("an answer");
    assert!(grants.iter().all(is_granted), "{grants:?}");
    let grants = lease.acquire_many(&keys, LONG).await.expect("an answer");
    assert_eq!(grants.len(), keys.len());
    for (place, grant) in grants.iter().enumerate() {
        assert_eq!(is_granted(grant), place % 2 == 0, "place {place}: {grant:?}");
    }
}

/// Also within one batch.
pub async fn a_key_asked_twice_is_granted_once<L: Lease>(lease: L) {
    let key = Key::new("conformance:lease:twice");
    let grants = lease.acquire_many(&[key.clone(), key], LONG).await.expect("an answer");
    assert_eq!(grants.iter().filter(|grant| is_granted(grant)).count(), 1, "{grants:?}");
}

/// No byte is special in a key.
pub async fn keys_are_any_bytes<L: Lease>(lease: L) {
    let every_byte: Vec<u8> = (0..=255).collect();
    for bytes in [every_byte, b"conformance:lease:\r\n \0{}".to_vec()] {
        let key = Key::new(bytes);
        let token = grant(&lease, &key, LONG).await;
        held(&lease, &key).await;
        release(&lease, &key, token).await;
        grant(&lease, &key, LONG).await;
    }
}

/// At once, not only when it would have run out.
pub async fn a_release_frees_the_key<L: Lease>(lease: L) {
    let keys = ["a", "b", "c"].map(|name| Key::new(format!("conformance:lease:freed:{name}")));
    let mut leases = Vec::new();
    for key in &keys {
        leases.push((key.clone(), grant(&lease, key, LONG).await));
    }
    lease.release_many(&leases[..2]).await.expect("a release");
    grant(&lease, &keys[0], LONG).await;
    grant(&lease, &keys[1], LONG).await;
    held(&lease, &keys[2]).await;
}

/// Neither a made-up token does, nor that of another key or of an earlier grant.
pub async fn a_wrong_token_releases_nothing<L: Lease>(lease: L) {
    let (key, other) = (Key::new("conformance:lease:wrong"), Key::new("conformance:lease:other"));
    let earlier = grant(&lease, &key, LONG).await;
    release(&lease, &key, earlier).await;
    let live = grant(&lease, &key, LONG).await;
    let of_other = grant(&lease, &other, LONG).await;
    let made_up = LeaseToken(live.0 ^ 1);
    for wrong in [earlier, of_other, made_up, LeaseToken(0), LeaseToken(u64::MAX)] {
        if wrong != live {
            release(&lease, &key, wrong).await;
            held(&lease, &key).await;
        }
    }
    release(&lease, &key, live).await;
    release(&lease, &key, live).await;
    grant(&lease, &key, LONG).await;
}

/// A holder that died costs at most its lease, and one that lives on does not
/// end the lease of its successor.
pub async fn what_runs_out_is_free_and_its_token_is_dead<L: Lease>(lease: L) {
    const SHORT: Duration = Duration::from_millis(300);
    let key = Key::new("conformance:lease:expired");
    let start = Instant::now();
    let dead = grant(&lease, &key, SHORT).await;
    loop {
        // The answer is as old as the question at most.
        let asked = start.elapsed();
        match acquire(&lease, &key, LONG).await {
            LeaseGrant::Granted(_) => break,
            LeaseGrant::Held(remaining) => {
                assert!(asked < PATIENCE, "it does not run out");
                assert!(remaining <= SHORT, "{remaining:?} of {SHORT:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Servers tell time in milliseconds.
    let ran_out = start.elapsed() + Duration::from_millis(2);
    assert!(ran_out >= SHORT, "it ran out after {ran_out:?}");
    release(&lease, &key, dead).await;
    held(&lease, &key).await;
}

/// What was granted once is told apart from everything granted later.
pub async fn no_two_grants_have_one_token<L: Lease>(lease: L) {
    let key = Key::new("conformance:lease:tokens");
    let mut seen = HashSet::new();
    for _ in 0..100 {
        let token = grant(&lease, &key, LONG).await;
        assert!(seen.insert(token), "{token:?} was granted twice");
        release(&lease, &key, token).await;
    }
}

/// Whoever asks at the same moment.
pub async fn of_many_askers_one_is_granted<L: Lease>(lease: L) {
    let lease = Arc::new(lease);
    let keys: Vec<Key> = (0..8).map(|n| Key::new(format!("conformance:lease:race:{n}"))).collect();
    let askers: Vec<_> = (0..32)
        .map(|asker| {
            let lease = Arc::clone(&lease);
            let mut keys = keys.clone();
            // Not all in the same order.
            keys.rotate_left(asker % 8);
            tokio::spawn(async move {
                let grants = lease.acquire_many(&keys, LONG).await.expect("an answer");
                keys.into_iter().zip(grants).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut granted = Vec::new();
    for asker in askers {
        let answers = asker.await.expect("the asker ends");
        granted.extend(answers.into_iter().filter(|(_, grant)| is_granted(grant)));
    }
    for key in &keys {
        let grants = granted.iter().filter(|(of, _)| of == key).count();
        assert_eq!(grants, 1, "{key}");
    }
}

/// Long before they would give up. A wake-up may be lost now and then: one of
/// some releases is enough.
pub async fn a_release_wakes_who_waits<L: Lease>(lease: L) {
    let key = Key::new("conformance:lease:woken");
    let lease = Arc::new(lease);
    let waiters: Vec<_> = (0..4).map(|_| wait(&lease, &key)).collect();
    release_until_woken(&*lease, &key, || waiters.iter().all(tokio::task::JoinHandle::is_finished))
        .await;
}

/// Also if nothing happens.
pub async fn a_wait_ends_in_time<L: Lease>(lease: L) {
    let key = Key::new("conformance:lease:quiet");
    grant(&lease, &key, LONG).await;
    let wait = lease.released(&key, Duration::from_millis(50));
    tokio::time::timeout(PATIENCE, wait).await.expect("it ends");
}

/// Waits given up in any number take nothing from those that stay.
pub async fn a_dropped_wait_leaves_nothing_behind<L: Lease>(lease: L) {
    let key = Key::new("conformance:lease:dropped");
    let lease = Arc::new(lease);
    let dropped: Vec<_> = (0..100).map(|_| wait(&lease, &key)).collect();
    tokio::time::sleep(Duration::from_millis(5)).await;
    dropped.iter().for_each(tokio::task::JoinHandle::abort);
    for waiter in dropped {
        // Aborted or woken for nothing.
        let _ = waiter.await;
    }
    let waiter = wait(&lease, &key);
    release_until_woken(&*lease, &key, || waiter.is_finished()).await;
}

/// Empty batches succeed.
pub async fn nothing_to_do_is_done<L: Lease>(lease: L) {
    assert_eq!(lease.acquire_many(&[], LONG).await.expect("an answer"), []);
    lease.release_many(&[]).await.expect("a release");
}

fn wait<L: Lease>(lease: &Arc<L>, key: &Key) -> tokio::task::JoinHandle<()> {
    let (lease, key) = (Arc::clone(lease), key.clone());
    tokio::spawn(async move { lease.released(&key, LONG).await })
}

async fn release_until_woken<L: Lease>(lease: &L, key: &Key, is_woken: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_woken() {
        assert!(Instant::now() < deadline, "nobody is woken");
        let token = grant(lease, key, LONG).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        release(lease, key, token).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_granted(grant: &LeaseGrant) -> bool {
    matches!(grant, LeaseGrant::Granted(_))
}

async fn acquire<L: Lease>(lease: &L, key: &Key, duration: Duration) -> LeaseGrant {
    let grants = lease.acquire_many(std::slice::from_ref(key), duration).await.expect("an answer");
    let [grant] = grants[..] else { panic!("one answer for one key: {grants:?}") };
    grant
}

async fn grant<L: Lease>(lease: &L, key: &Key, duration: Duration) -> LeaseToken {
    match acquire(lease, key, duration).await {
        LeaseGrant::Granted(token) => token,
        held => panic!("{key} is free, and the answer is {held:?}"),
    }
}

async fn held<L: Lease>(lease: &L, key: &Key) -> Duration {
    match acquire(lease, key, LONG).await {
        LeaseGrant::Held(remaining) => remaining,
        granted => panic!("{key} is held, and the answer is {granted:?}"),
    }
}

async fn release<L: Lease>(lease: &L, key: &Key, token: LeaseToken) {
    lease.release_many(&[(key.clone(), token)]).await.expect("a release");
}
