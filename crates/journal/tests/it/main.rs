//! The journal on a disk, real and simulated.

mod crashes;
mod model;
mod simulated;
mod support;
