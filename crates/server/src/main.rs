//! The program `larder`.

use std::process::ExitCode;

/// Returns memory to the system and keeps fragmentation low under the churn of
/// a cache.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Before anything can open a connection: the provider is chosen once. It
    // can only be set already, and then it is set.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    larder_server::cli::run()
}
