//! What the tests share.

/// `./test --full` asks for the long form.
pub(crate) fn is_full() -> bool {
    std::env::var_os("LARDER_FULL").is_some()
}
