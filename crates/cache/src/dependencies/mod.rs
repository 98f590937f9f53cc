//! What depends on what (I3): a change of one cache invalidates what others have
//! computed from it.
//!
//! ```text
//! DependencyGraph   what depends on what; names and patterns, no I/O
//!   ├ declaration   from texts to nodes and edges
//!   ├ components    cycles are one, and come in an order
//!   └ cascade       what a change touches, bounded
//! Dependencies      the caches of this process that have joined a graph
//! ```
//! What a cache does with what it is told is in `pipeline::cascade`.

mod bounds;
mod cascade;
mod components;
mod declaration;
mod dependence;
mod graph;
mod group;
#[cfg(test)]
mod model;

pub use bounds::{CascadeBound, CascadeBounds};
pub use cascade::{Cascade, Step, Touch, Touched};
pub(crate) use dependence::{Dependence, FieldRule};
pub use graph::{DependencyGraph, Edge, GraphBuilder, Node};
pub use group::{Dependencies, DependencyStatistics};
pub(crate) use group::{Dependent, Following};
