//! Stand-ins for an origin, a store, a bus and leases whose faults a test scripts.
//!
//! Time passes only when a [`larder_core::ManualClock`] is advanced and a
//! [`Gate`] opens only when a test opens it, so a test decides every
//! interleaving and never sleeps. Heartbeats of the bus and leases go by tokio's
//! time, which a test can pause.

mod bus;
mod gate;
mod lease;
mod origin;
mod store;
mod table;

pub use bus::{FaultyBus, FaultySubscription, PublishFault};
pub use gate::Gate;
pub use lease::FaultyLease;
pub use origin::{Answer, Call, FaultyOrigin, WriteFault};
pub use store::{FaultyStore, StoreFault};
pub use table::{FaultyTable, Row, WriteAnswer};
