//! A command on its way to Redis: what it may change and what is kept of its
//! reply.

use std::sync::Arc;

use super::cluster::merge::Merge;
use super::course::Touches;
use super::frame;
use super::mailbox::Mailbox;
use super::memory::{Fill, Memory, Token};
use crate::keyspace::WallTime;
use crate::resp::command::KeySpec;

/// What to forget because of a command: before it is sent, so that the client
/// itself reads behind it, and before its reply is given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Void {
    /// Nothing.
    #[default]
    Nothing,
    /// These keys: each behind its length, in one allocation.
    Keys(Vec<u8>),
    /// All there is.
    Everything,
}

impl Void {
    /// What a command with these arguments may change.
    pub(crate) fn of(touches: Touches, arguments: &[&[u8]]) -> Self {
        let mut void = Self::Nothing;
        void.add(touches, arguments);
        void
    }

    /// Adds what another command may change.
    pub(crate) fn add(&mut self, touches: Touches, arguments: &[&[u8]]) {
        let spec = match touches {
            Touches::Nothing => return,
            Touches::Keys(spec) => spec,
            Touches::Arguments | Touches::Unknown => KeySpec::ALL,
            Touches::Everything => {
                *self = Self::Everything;
                return;
            }
        };
        if *self == Self::Everything {
            return;
        }
        let mut keys = match std::mem::take(self) {
            Self::Keys(keys) => keys,
            _ => Vec::new(),
        };
        for place in spec.positions(arguments.len()) {
            let key = arguments[place];
            // Longer ones are not kept.
            if let Ok(length) = u16::try_from(key.len())
                && key.len() <= super::memory::KEY_BYTES_MAX
            {
                keys.extend_from_slice(&length.to_le_bytes());
                keys.extend_from_slice(key);
            }
        }
        *self = Self::Keys(keys);
    }

    /// How much it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Keys(keys) => keys.capacity(),
            _ => 0,
        }
    }

    /// Forgets it.
    pub(crate) fn apply(&self, memory: &Memory) {
        match self {
            Self::Nothing => {}
            Self::Everything => memory.clear(),
            Self::Keys(keys) => {
                let mut rest = keys.as_slice();
                while let Some((length, tail)) = rest.split_first_chunk::<2>() {
                    let (key, tail) = tail.split_at(usize::from(u16::from_le_bytes(*length)));
                    memory.void(key);
                    rest = tail;
                }
            }
        }
    }
}

/// A command for [`super::link::Link::ask`].
pub(crate) struct Request {
    /// Where its reply goes.
    pub(crate) to: To,
    /// Whether the client wants the reply; it waits for it in any case.
    pub(crate) is_wanted: bool,
    /// What is to be forgotten before the reply is given.
    pub(crate) void: Void,
    /// What of the reply is to be kept.
    pub(crate) wanted: Option<Box<Wanted>>,
    /// How to send it to another server of a cluster, if one says so.
    pub(crate) again: Option<Box<Again>>,
}

/// What it takes to send a command once more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Again {
    /// The command as it was sent.
    pub(crate) command: Vec<u8>,
    /// How often it was.
    pub(crate) tries: u32,
}

/// Where a reply goes.
#[derive(Clone)]
pub(crate) enum To {
    /// To a client, who has this ticket for it.
    Client(Arc<Mailbox>, u64),
    /// It is one of several of which one reply is made.
    Part(Arc<Merge>, usize),
}

impl To {
    /// Hands over a reply or a part of it.
    pub(crate) fn put(&self, bytes: &[u8], is_end: bool) {
        match self {
            Self::Client(mailbox, ticket) => mailbox.put(*ticket, bytes, is_end),
            Self::Part(merge, place) => merge.put(*place, bytes, is_end),
        }
    }

    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        match self {
            Self::Client(mailbox, _) => mailbox,
            Self::Part(merge, _) => merge.mailbox(),
        }
    }

    pub(crate) fn ticket(&self) -> u64 {
        match self {
            Self::Client(_, ticket) => *ticket,
            Self::Part(merge, _) => merge.ticket(),
        }
    }
}

/// Values that are being read and are to be kept: one key of `GET`, or those of
/// `MGET`. The lifetimes of the keys are asked for behind the read.
#[derive(Debug)]
pub(crate) struct Wanted {
    keys: Vec<(Box<[u8]>, Option<Token>)>,
    is_array: bool,
    read_at: WallTime,
}

/// Values that have come; their lifetimes are still to come.
#[derive(Debug)]
pub(crate) struct Arrived {
    wanted: Box<Wanted>,
    reply: Vec<u8>,
    /// Where in the reply the next value begins; `None` if there is none.
    at: Option<usize>,
    next: usize,
}

impl Wanted {
    /// Takes tokens for these keys: to be called before the read is sent.
    pub(crate) fn new(
        memory: &Memory,
        now: larder_core::Moment,
        keys: &[&[u8]],
        is_array: bool,
    ) -> Option<Box<Self>> {
        let keys: Vec<_> =
            keys.iter().map(|key| (Box::from(*key), memory.token(key, now))).collect();
        let is_any_kept = keys.iter().any(|(_, token)| token.is_some());
        is_any_kept.then(|| Box::new(Self { keys, is_array, read_at: memory.wall_time() }))
    }

    /// Whether what is to be kept is asked of this server.
    pub(crate) fn is_of(&self, node: usize) -> bool {
        self.keys.iter().all(|(_, token)| token.is_none_or(|token| token.node() == node))
    }

    /// Appends the commands that ask for the lifetimes; returns how many.
    pub(crate) fn ask_lifetimes(&self, command: &mut Vec<u8>) -> usize {
        for (key, _) in &self.keys {
            super::wire::encode(&[b"PTTL", key], command);
        }
        self.keys.len()
    }

    /// Goes on with the reply of the read.
    pub(crate) fn arrive(self: Box<Self>, reply: &[u8]) -> Arrived {
        let at = if self.is_array {
            frame::array(reply)
                .filter(|(count, _)| *count == self.keys.len())
                .map(|(_, rest)| reply.len() - rest.len())
        } else {
            Some(0)
        };
        Arrived { wanted: self, reply: reply.to_vec(), at, next: 0 }
    }
}

impl Arrived {
    /// Keeps the next value, whose key has this lifetime. Says what came of it,
    /// unless it was not to be kept.
    pub(crate) fn keep_next(&mut self, memory: &Memory, lifetime: &[u8]) -> Option<Fill> {
        let (key, token) = self.wanted.keys.get(self.next)?;
        self.next += 1;
        let at = self.at?;
        let Some((value, rest)) = frame::string(&self.reply[at..]) else {
            self.at = None;
            return None;
        };
        self.at = Some(self.reply.len() - rest.len());
        let lifetime = match (frame::integer(lifetime)?, value) {
            (-1, Some(_)) => None,
            // `MGET` says of a list, too, that there is no string.
            (-2, None) => None,
            (millis, Some(_)) => {
                Some(std::time::Duration::from_millis(u64::try_from(millis).ok()?))
            }
            _ => return None,
        };
        Some(memory.fill(key, value, (*token)?, self.wanted.read_at, lifetime))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use larder_core::Moment;

    use super::*;
    use crate::keyspace::{Keyspace, KeyspaceOptions};

    const NOW: Moment = Moment::from_nanos(1_000_000_000);

    fn memory() -> Memory {
        let memory =
            Memory::new(Arc::new(Keyspace::new(KeyspaceOptions::default())), false, 100, &[]);
        memory.validity.prolong(0, NOW, NOW + Duration::from_secs(1));
        memory
    }

    fn keep(memory: &Memory, keys: &[&[u8]], reply: &[u8], lifetimes: &[&[u8]]) {
        let is_array = reply.starts_with(b"*");
        let wanted = Wanted::new(memory, NOW, keys, is_array).expect("it holds");
        let mut arrived = wanted.arrive(reply);
        for lifetime in lifetimes {
            let _ = arrived.keep_next(memory, lifetime);
        }
    }

    fn get(memory: &Memory, key: &[u8]) -> Option<Option<Vec<u8>>> {
        memory.get(key, NOW, |value| value.map(<[u8]>::to_vec))
    }

    #[test]
    fn values_are_kept_with_their_lifetimes() {
        let memory = memory();
        keep(&memory, &[b"a"], b"$1\r\nx\r\n", &[b":-1\r\n"]);
        assert_eq!(get(&memory, b"a"), Some(Some(b"x".to_vec())));
        keep(&memory, &[b"gone"], b"$1\r\nx\r\n", &[b":-2\r\n"]);
        assert_eq!(get(&memory, b"gone"), None, "it expired between the two");
        keep(&memory, &[b"none"], b"$-1\r\n", &[b":-2\r\n"]);
        assert_eq!(get(&memory, b"none"), Some(None));
        let list = b"-WRONGTYPE x\r\n";
        keep(&memory, &[b"list"], list, &[b":-1\r\n"]);
        assert_eq!(get(&memory, b"list"), None);
        keep(
            &memory,
            &[b"p", b"list", b"q"],
            b"*3\r\n$1\r\n1\r\n$-1\r\n$1\r\n2\r\n",
            &[b":5000\r\n", b":-1\r\n", b":0\r\n"],
        );
        assert_eq!(get(&memory, b"p"), Some(Some(b"1".to_vec())));
        assert_eq!(get(&memory, b"list"), None);
        assert_eq!(get(&memory, b"q"), None, "its time is up");
    }

    #[test]
    fn what_a_command_may_change_is_forgotten() {
        let memory = memory();
        let check = |touches, arguments: &[&[u8]], left: &[&[u8]]| {
            for key in [b"a", b"b", b"c"] {
                keep(&memory, &[key], b"$1\r\nx\r\n", &[b":-1\r\n"]);
            }
            Void::of(touches, arguments).apply(&memory);
            let there: Vec<&[u8]> = [&b"a"[..], b"b", b"c"]
                .into_iter()
                .filter(|key| get(&memory, key).is_some())
                .collect();
            assert_eq!(there, left, "{touches:?}");
        };
        check(Touches::Nothing, &[b"GET", b"a"], &[b"a", b"b", b"c"]);
        check(Touches::Keys(KeySpec::ONE), &[b"SET", b"a", b"b"], &[b"b", b"c"]);
        check(Touches::Keys(KeySpec::PAIRS), &[b"MSET", b"a", b"b", b"c", b"x"], &[b"b"]);
        check(Touches::Arguments, &[b"BITOP", b"AND", b"a", b"b"], &[b"c"]);
        check(Touches::Everything, &[b"FLUSHALL"], &[]);
    }
}
