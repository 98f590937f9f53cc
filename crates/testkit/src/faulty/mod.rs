//! Stand-ins for an origin and a store whose faults a test scripts.
//!
//! Time passes only when a [`larder_core::ManualClock`] is advanced and a
//! [`Gate`] opens only when a test opens it, so a test decides every
//! interleaving and never sleeps.

mod gate;
mod origin;
mod store;

pub use gate::Gate;
pub use origin::{Answer, Call, FaultyOrigin};
pub use store::{FaultyStore, StoreFault};
