//! The disk tier, against a real directory.

mod ages;
mod budget;
mod conformance;
mod damage;
mod directory;
mod kill;
mod restart;
mod support;
