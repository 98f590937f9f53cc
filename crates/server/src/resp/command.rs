//! What a command is: one table entry from which dispatch, `COMMAND`, key
//! routing and the generated reference all derive.

use larder_core::BoxFuture;

use super::Reply;
use super::session::Session;
use crate::keyspace::{Keyspace, Locked};

/// One command.
#[derive(Clone, Copy)]
pub struct Command {
    /// The name in lower case, as `COMMAND` gives it.
    pub name: &'static str,
    /// The number of arguments with the name; negative means at least that many.
    pub arity: i32,
    /// The arguments as the reference shows them, such as `key [EX seconds]`.
    pub syntax: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Which page of the reference it stands on.
    pub group: Group,
    /// Since which Redis it exists; empty for Larder's own.
    pub since: &'static str,
    /// The cost, such as `O(1)`.
    pub complexity: &'static str,
    /// Redis' flags, such as `readonly` and `fast`.
    pub flags: &'static [&'static str],
    /// Which arguments are keys.
    pub keys: KeySpec,
    /// What it means for a key that belongs to a cache.
    pub on_cache: OnCache,
    /// What runs it.
    pub handler: Handler,
}

/// A page of the reference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// About the connection.
    Connection,
    /// About the server.
    Server,
    /// About keys of any type.
    Generic,
    /// About string values.
    String,
    /// `MULTI` and its kin.
    Transactions,
    /// Larder's own.
    Larder,
}

/// Which arguments are keys: from `first` to `last` (negative counts from the
/// end), each `step`. `first` is 0 for a command without keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeySpec {
    /// The first key's position; the name is at 0.
    pub first: usize,
    /// The last key's position.
    pub last: i32,
    /// The distance between two keys.
    pub step: usize,
}

impl KeySpec {
    /// No keys.
    pub const NONE: Self = Self { first: 0, last: 0, step: 0 };
    /// The first argument.
    pub const ONE: Self = Self { first: 1, last: 1, step: 1 };
    /// The first two arguments.
    pub const TWO: Self = Self { first: 1, last: 2, step: 1 };
    /// Every argument.
    pub const ALL: Self = Self { first: 1, last: -1, step: 1 };
    /// Every other argument, as `MSET` has it.
    pub const PAIRS: Self = Self { first: 1, last: -1, step: 2 };

    /// The positions of the keys among `count` arguments, the name included.
    pub fn positions(self, count: usize) -> impl Iterator<Item = usize> + Clone {
        let end = if self.first == 0 {
            0
        } else if self.last < 0 {
            (count as i64 + i64::from(self.last) + 1).max(0) as usize
        } else {
            (self.last as usize + 1).min(count)
        };
        (self.first..end).step_by(self.step.max(1))
    }
}

/// What a command means for a key that belongs to a read-through cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnCache {
    /// It reads the value, and may load it.
    Read,
    /// It looks at what is cached, and never loads.
    Inspect,
    /// It would write: refused, naming the way to invalidate.
    Refuse,
    /// It has no keys.
    NoKeys,
}

/// Runs a command that may have to wait.
pub type WaitingHandler =
    for<'a> fn(&'a mut Session, &'a [&'a [u8]], &'a mut Reply) -> BoxFuture<'a, ()>;

/// What runs a command.
#[derive(Clone, Copy)]
pub enum Handler {
    /// Under the locks of its keys, all of which are plain.
    Data(fn(&mut Locked<'_>, &[&[u8]], &mut Reply)),
    /// Over the whole keyspace.
    Keyspace(fn(&Keyspace, &[&[u8]], &mut Reply)),
    /// With the connection's own state.
    Session(fn(&mut Session, &[&[u8]], &mut Reply)),
    /// With the connection's own state, and it may have to wait.
    Waiting(WaitingHandler),
}
