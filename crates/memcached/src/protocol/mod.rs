//! The meta protocol of memcached, both directions, without any connection.
//!
//! Sending: a [`Request`] says what is asked of one key. Receiving: a [`Parser`]
//! makes [`Reply`]s of whatever bytes arrive; it bounds what they may announce
//! and never panics.

mod flags;
mod parser;
mod reply;
mod request;

pub use flags::ReplyFlags;
pub use parser::{Limits, Parser, ProtocolError};
pub use reply::{Complaint, ComplaintKind, Reply};
pub(crate) use request::Kind;
pub use request::{KEY_BYTES_MAX, Mode, Request, WireKey};
