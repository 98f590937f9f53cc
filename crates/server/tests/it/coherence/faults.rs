//! What can go wrong between nodes and their Redis.

use std::time::Duration;

use larder_testkit::proxy::{Direction, FaultProxy};
use larder_testkit::redis::AfterRestart;

use super::nodes::Nodes;

/// A fault, and how it ends.
#[derive(Clone, Copy)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    pub(super) strike: fn(&mut Nodes),
    /// What happens again and again while it lasts.
    pub(super) goes_on: fn(&Nodes, &mut fastrand::Rng),
    pub(super) heal: fn(&mut Nodes),
}

impl Fault {
    /// Without a fault.
    const NONE: Self = Self { name: "none", strike: |_| {}, goes_on: |_, _| {}, heal: |_| {} };

    /// Whether what a node announces while it lasts is lost with that node: only who
    /// announced it can say it again.
    pub(super) fn needs_announcers(&self) -> bool {
        self.name == TAKE_OVER
    }
}

const TAKE_OVER: &str = "a replica takes over, short of the tail";

/// The node that suffers where one does.
pub(super) const VICTIM: usize = 1;

pub(super) const FAULTS: [Fault; 11] = [
    Fault::NONE,
    Fault {
        name: "one node's connections stall",
        strike: |nodes| nodes.proxy(VICTIM).all().stall(Direction::ToClient),
        heal: |nodes| nodes.proxy(VICTIM).lift(),
        ..Fault::NONE
    },
    Fault {
        name: "one node hears nothing",
        strike: |nodes| nodes.proxy(VICTIM).all().black_hole(Direction::ToClient),
        heal: |nodes| {
            nodes.proxy(VICTIM).lift();
            nodes.proxy(VICTIM).all().reset();
        },
        ..Fault::NONE
    },
    Fault {
        name: "one node cannot say anything",
        strike: |nodes| nodes.proxy(VICTIM).all().black_hole(Direction::ToServer),
        heal: |nodes| {
            nodes.proxy(VICTIM).lift();
            nodes.proxy(VICTIM).all().reset();
        },
        ..Fault::NONE
    },
    Fault {
        name: "connections break",
        strike: |nodes| (0..3).for_each(|node| nodes.proxy(node).all().reset()),
        heal: |nodes| (0..3).for_each(|node| nodes.proxy(node).all().reset()),
        ..Fault::NONE
    },
    Fault {
        name: "Redis restarts empty",
        strike: |nodes| nodes.primary().restart(AfterRestart::Empty),
        heal: |_| {},
        ..Fault::NONE
    },
    Fault {
        name: "FLUSHALL",
        strike: |nodes| drop(nodes.primary().command(&["FLUSHALL"])),
        heal: |_| {},
        ..Fault::NONE
    },
    Fault {
        name: "Redis stands still",
        strike: |nodes| nodes.primary().pause(),
        heal: |nodes| nodes.primary().resume(),
        ..Fault::NONE
    },
    Fault {
        name: "the stream is trimmed past a node",
        strike: |nodes| nodes.proxy(VICTIM).all().stall(Direction::ToClient),
        heal: |nodes| {
            drop(nodes.primary().command(&["XTRIM", &nodes.stream(), "MAXLEN", "0"]));
            nodes.proxy(VICTIM).all().reset();
            nodes.proxy(VICTIM).lift();
        },
        ..Fault::NONE
    },
    Fault {
        name: TAKE_OVER,
        strike: |nodes| nodes.hold_replica_back(),
        heal: |nodes| nodes.fail_over(),
        ..Fault::NONE
    },
    Fault {
        name: "connections overtake one another",
        goes_on: |nodes, random| (0..3).for_each(|node| delay_each(nodes.proxy(node), random)),
        heal: |nodes| (0..3).for_each(|node| nodes.proxy(node).lift()),
        ..Fault::NONE
    },
];

/// Gives each connection delays of its own, each way: messages, heartbeats and entries
/// arrive in another order than they were sent.
fn delay_each(proxy: &FaultProxy, random: &mut fastrand::Rng) {
    let mut millis = |most| Duration::from_millis(random.u64(..most));
    for connection in proxy.connections() {
        for direction in [Direction::ToServer, Direction::ToClient] {
            proxy.connection(connection.id).delay(direction, millis(25), millis(25));
        }
    }
    proxy.future().delay(Direction::Both, millis(25), millis(25));
}
