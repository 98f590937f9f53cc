//! What can go wrong between nodes and their Redis.

use larder_testkit::proxy::Direction;
use larder_testkit::redis::AfterRestart;

use super::nodes::Nodes;

/// A fault, and how it ends.
#[derive(Clone, Copy)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    pub(super) strike: fn(&mut Nodes),
    pub(super) heal: fn(&mut Nodes),
}

/// The node that suffers where one does.
const VICTIM: usize = 1;

pub(super) const FAULTS: [Fault; 10] = [
    Fault { name: "none", strike: |_| {}, heal: |_| {} },
    Fault {
        name: "one node's connections stall",
        strike: |nodes| nodes.proxy(VICTIM).all().stall(Direction::ToClient),
        heal: |nodes| nodes.proxy(VICTIM).lift(),
    },
    Fault {
        name: "one node hears nothing",
        strike: |nodes| nodes.proxy(VICTIM).all().black_hole(Direction::ToClient),
        heal: |nodes| {
            nodes.proxy(VICTIM).lift();
            nodes.proxy(VICTIM).all().reset();
        },
    },
    Fault {
        name: "one node cannot say anything",
        strike: |nodes| nodes.proxy(VICTIM).all().black_hole(Direction::ToServer),
        heal: |nodes| {
            nodes.proxy(VICTIM).lift();
            nodes.proxy(VICTIM).all().reset();
        },
    },
    Fault {
        name: "connections break",
        strike: |nodes| (0..3).for_each(|node| nodes.proxy(node).all().reset()),
        heal: |nodes| (0..3).for_each(|node| nodes.proxy(node).all().reset()),
    },
    Fault {
        name: "Redis restarts empty",
        strike: |nodes| nodes.primary().restart(AfterRestart::Empty),
        heal: |_| {},
    },
    Fault {
        name: "FLUSHALL",
        strike: |nodes| drop(nodes.primary().command(&["FLUSHALL"])),
        heal: |_| {},
    },
    Fault {
        name: "Redis stands still",
        strike: |nodes| nodes.primary().pause(),
        heal: |nodes| nodes.primary().resume(),
    },
    Fault {
        name: "the stream is trimmed past a node",
        strike: |nodes| nodes.proxy(VICTIM).all().stall(Direction::ToClient),
        heal: |nodes| {
            drop(nodes.primary().command(&["XTRIM", &nodes.stream(), "MAXLEN", "0"]));
            nodes.proxy(VICTIM).all().reset();
            nodes.proxy(VICTIM).lift();
        },
    },
    Fault {
        name: "a replica takes over, short of the tail",
        strike: |nodes| nodes.hold_replica_back(),
        heal: |nodes| nodes.fail_over(),
    },
];
