//! The journal on a disk, real and simulated.

mod conformance;
mod crashes;
mod damage;
mod directory;
mod kill;
mod model;
mod simulated;
mod support;
