//! In front of a cluster: clients see a single Redis.

mod differential;
mod faults;
mod pipelines;
mod redirections;
mod surroundings;
mod transactions;

use larder_server::front::{FrontTopology, TrackingState, UpstreamOptions};
use larder_server::resp::Door;
use larder_testkit::redis::Cluster;

use super::{Client, counted, eventually, open_front, wait_for, warm};

/// A door in front of a cluster, once it answers from memory.
fn front_of(cluster: &Cluster) -> Door {
    front_at(cluster.servers()[0].address())
}

/// The same, found at this address.
fn front_at(address: std::net::SocketAddr) -> Door {
    let url = format!("redis://{address}");
    let upstream = UpstreamOptions::parse(&url).expect("it is a URL");
    let door = open_front(upstream, std::sync::Arc::new(super::NoCaches), |front| {
        front.topology = FrontTopology::Cluster;
    });
    wait_until_tracked(&door, 3);
    door
}

/// Waits until each primary tells what changes.
fn wait_until_tracked(door: &Door, primaries: usize) {
    wait_for(door, TrackingState::Tracking);
    eventually("all primaries are known", || {
        let mut client = Client::connect(door.address());
        let info = client.ask("INFO larder");
        info.contains(&format!("front_servers:{primaries}\r\n"))
            && info.contains("front_tracking:tracking")
    });
}

/// A key of each primary at the start, in the order of their places.
fn key_of(place: usize) -> String {
    let third = usize::from(larder_testkit::redis::SLOTS) / 3;
    (0..)
        .map(|number| format!("key{number}"))
        .find(|key| usize::from(Cluster::slot(key.as_bytes())) / (third + 1) == place)
        .expect("there is one")
}
