//! Tests of the audit buffer.

mod buffer;
mod crashes;
mod kill;
mod rotation;
/// The disk that the journal is tested on.
#[path = "../../../journal/tests/it/simulated.rs"]
mod simulated;
mod sql;
mod support;
