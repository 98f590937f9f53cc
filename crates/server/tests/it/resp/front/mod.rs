//! The door in front of an existing Redis: the same answers, reads from memory,
//! and never an old one.

mod cluster;
mod coherence;
mod differential;
mod dropin;
mod imitation;
mod outage;
mod own_connection;
mod pipelines;
mod sentinel;
mod stalled;
mod surroundings;

use std::sync::Arc;
use std::time::Duration;

use larder_server::front::{FrontOptions, FrontStatistics, TrackingState, UpstreamOptions};
use larder_server::resp::{Door, DoorOptions, NoCaches, Routes};
use larder_testkit::redis::RedisServer;

use super::{Client, encode, eventually, open, open_with, options, text};

/// A door in front of a Redis, once it answers from memory.
fn front(redis: &RedisServer) -> Door {
    let door = front_with(redis, |_| {});
    wait_for(&door, TrackingState::Tracking);
    door
}

/// The same with other options, and without waiting.
fn front_with(redis: &RedisServer, change: impl FnOnce(&mut FrontOptions)) -> Door {
    let upstream =
        UpstreamOptions::parse(&format!("redis://{}", redis.address())).expect("it is a URL");
    open_front(upstream, Arc::new(NoCaches), change)
}

fn open_front(
    upstream: UpstreamOptions,
    routes: Arc<dyn Routes>,
    change: impl FnOnce(&mut FrontOptions),
) -> Door {
    let mut front = FrontOptions::new(upstream);
    change(&mut front);
    open_with(&DoorOptions { front: Some(front), ..options() }, routes)
}

fn counted(door: &Door) -> FrontStatistics {
    door.monitor().front_statistics().expect("it stands in front of a Redis")
}

fn wait_for(door: &Door, state: TrackingState) {
    eventually(state.name(), || counted(door).tracking == state);
}

/// Asks until memory answers: a value is kept a moment after it was read.
fn warm(door: &Door, client: &mut Client, key: &str) -> String {
    let before = counted(door).hits;
    let mut last = String::new();
    eventually("an answer from memory", || {
        last = client.ask(&format!("GET {key}"));
        counted(door).hits > before
    });
    last
}

const SHORT: Duration = Duration::from_millis(300);
