//! Which program this is.

/// The version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Whether it was built without optimisations: then it is slow, and figures
/// measured with it say nothing.
pub const IS_DEBUG: bool = cfg!(debug_assertions);
