//! Suites that every implementation of a seam must pass.
//!
//! One line in an adapter's tests runs the whole suite against it:
//! [`store_conformance!`](crate::store_conformance) for a
//! [`larder_core::Store`], [`origin_conformance!`](crate::origin_conformance)
//! for a [`larder_core::Origin`],
//! [`origin_writing_conformance!`](crate::origin_writing_conformance) for one that
//! takes writes, [`lease_conformance!`](crate::lease_conformance)
//! for a [`larder_core::Lease`], [`bus_conformance!`](crate::bus_conformance) for a
//! [`larder_core::Bus`], [`journal_conformance!`](crate::journal_conformance) for a
//! [`larder_core::Journal`].

pub mod bus;
pub mod journal;
mod kept;
pub mod lease;
pub mod origin;
pub mod store;
pub mod writes;

use std::future::Future;

pub use kept::Kept;

/// Runs one test on a runtime of its own with two worker threads, so that what
/// a test spawns really runs beside it.
///
/// # Panics
/// If the test does, or if no runtime can be started.
pub fn block_on<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts")
        .block_on(test)
}
