//! Which server of a cluster a command is for.
//!
//! Only the first key needs to be known: a command whose other keys are elsewhere
//! is refused by its server, as in any cluster. A guess that is wrong is put right
//! by the server, too.

use std::sync::LazyLock;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::merge::Making;
use crate::keyspace::parse_integer;

/// Where a command goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place<'a> {
    /// To the owner of this key's slot.
    Key(&'a [u8]),
    /// To any server, always the same one.
    Any,
    /// To every primary, and what becomes of their replies.
    All(Making),
    /// To one primary after the other, as the cursor says.
    Scan,
    /// To any server, whose text is not to speak of a cluster.
    Disguised,
    /// Nowhere.
    Refuse(Refusal),
}

/// Why a command goes nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// It is about one server.
    OneServer,
    /// It makes sense for those who know that there is a cluster.
    NoCluster,
    /// A key without a value. As a whole it would be wrong in another way, too.
    OddPairs,
}

impl Refusal {
    /// The error, without its `-`.
    pub(crate) fn text(self, name: &[u8]) -> String {
        match self {
            Self::OneServer => format!(
                "ERR {} is about one server, and behind this Larder there is a cluster: connect \
                 to the server itself",
                String::from_utf8_lossy(name).to_uppercase()
            ),
            Self::NoCluster => "ERR This instance has cluster support disabled".to_owned(),
            Self::OddPairs => "ERR wrong number of arguments for 'mset' command".to_owned(),
        }
    }
}

/// Where the first key of a command stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum KeyAt {
    Second,
    /// Behind the number of keys, which stands there.
    Counted(usize),
    /// Behind the word `STREAMS`.
    Streams,
    /// The third argument, or behind the word `KEYS`.
    Migrate,
    Nowhere,
}

/// Commands whose first key is not their first argument.
const KEYS: &[(KeyAt, &str)] = &[
    (KeyAt::Second, "bitop memory object xgroup xinfo"),
    (KeyAt::Counted(1), "lmpop sintercard zdiff zinter zintercard zmpop zunion"),
    (KeyAt::Counted(2), "blmpop bzmpop eval eval_ro evalsha evalsha_ro fcall fcall_ro"),
    (KeyAt::Streams, "xread xreadgroup"),
    (KeyAt::Migrate, "migrate"),
    (
        KeyAt::Nowhere,
        "command discard echo exec lastsave lolwut multi ping psubscribe publish pubsub punsubscribe \
         role subscribe sunsubscribe time unsubscribe unwatch",
    ),
];

type Table = HashMap<&'static [u8], KeyAt, FixedState>;

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let names = |(at, names): &(KeyAt, &'static str)| {
        let at = *at;
        names.split_ascii_whitespace().map(move |name| (name.as_bytes(), at))
    };
    KEYS.iter().flat_map(names).collect()
});

/// Where a command goes, by its arguments, the name first.
pub(crate) fn of<'a>(arguments: &[&'a [u8]]) -> Place<'a> {
    const NAME_BYTES_MAX: usize = 24;
    let Some(&name) = arguments.first() else { return Place::Any };
    if name.len() > NAME_BYTES_MAX {
        return key_or_any(arguments.get(1));
    }
    let name = name.to_ascii_lowercase();
    if let Some(place) = of_server(&name, arguments) {
        return place;
    }
    match TABLE.get(name.as_slice()) {
        None => key_or_any(arguments.get(1)),
        Some(KeyAt::Nowhere) => Place::Any,
        Some(KeyAt::Second) => key_or_any(arguments.get(2)),
        Some(KeyAt::Counted(at)) => {
            let count = arguments.get(*at).and_then(|count| parse_integer(count));
            let has_keys = count.is_some_and(|count| count > 0);
            key_or_any(arguments.get(at + 1).filter(|_| has_keys))
        }
        Some(KeyAt::Streams) => key_or_any(behind(arguments, b"streams")),
        Some(KeyAt::Migrate) => match arguments.get(3) {
            Some(&[]) => key_or_any(behind(arguments, b"keys")),
            key => key_or_any(key),
        },
    }
}

/// The key of a command, if it has one.
pub(crate) fn first_key<'a>(arguments: &[&'a [u8]]) -> Option<&'a [u8]> {
    match of(arguments) {
        Place::Key(key) => Some(key),
        _ => None,
    }
}

fn key_or_any<'a>(key: Option<&&'a [u8]>) -> Place<'a> {
    key.map_or(Place::Any, |key| Place::Key(key))
}

fn behind<'b, 'a>(arguments: &'b [&'a [u8]], word: &[u8]) -> Option<&'b &'a [u8]> {
    let at = arguments.iter().position(|argument| argument.eq_ignore_ascii_case(word))?;
    arguments.get(at + 1)
}

/// Commands without keys that are about servers.
fn of_server<'a>(name: &[u8], arguments: &[&[u8]]) -> Option<Place<'a>> {
    let subcommand = arguments.get(1).map(|it| it.to_ascii_lowercase()).unwrap_or_default();
    let one_server = Place::Refuse(Refusal::OneServer);
    Some(match name {
        b"dbsize" => Place::All(Making::Sum),
        b"flushall" | b"flushdb" => Place::All(Making::First),
        b"keys" => Place::All(Making::Lists),
        b"randomkey" => Place::All(Making::OneOf),
        b"scan" => Place::Scan,
        b"info" => Place::Disguised,
        b"script" => match subcommand.as_slice() {
            b"load" | b"flush" => Place::All(Making::First),
            b"exists" => Place::All(Making::Least),
            b"kill" | b"debug" => one_server,
            _ => Place::Any,
        },
        b"function" => match subcommand.as_slice() {
            b"load" | b"delete" | b"flush" | b"restore" => Place::All(Making::First),
            b"kill" => one_server,
            _ => Place::Any,
        },
        b"config" | b"latency" | b"slowlog" => match subcommand.as_slice() {
            b"" | b"get" | b"help" => Place::Any,
            _ => one_server,
        },
        b"acl" => match subcommand.as_slice() {
            b"setuser" | b"deluser" | b"load" | b"save" | b"log" => one_server,
            _ => Place::Any,
        },
        b"memory" => match subcommand.as_slice() {
            b"usage" => return None,
            b"" | b"help" => Place::Any,
            _ => one_server,
        },
        b"bgrewriteaof" | b"bgsave" | b"debug" | b"failover" | b"module" | b"monitor"
        | b"replicaof" | b"save" | b"shutdown" | b"slaveof" | b"wait" | b"waitaof" | b"client" => {
            one_server
        }
        b"mset" if arguments.len() > 1 && arguments.len().is_multiple_of(2) => {
            Place::Refuse(Refusal::OddPairs)
        }
        b"asking" | b"cluster" | b"readonly" | b"readwrite" => Place::Refuse(Refusal::NoCluster),
        // It says that there is but one database.
        b"select" | b"swapdb" => Place::Any,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: &str) -> Place<'static> {
        let words: Vec<&'static [u8]> = line
            .split(' ')
            .map(|word| &*Box::leak(word.as_bytes().to_vec().into_boxed_slice()))
            .map(|word| if word == b"\"\"" { &b""[..] } else { word })
            .collect();
        of(&words)
    }

    #[test]
    fn commands_go_to_the_owner_of_their_first_key() {
        for line in [
            "GET k",
            "set k v",
            "BITOP AND k a b",
            "OBJECT ENCODING k",
            "XGROUP CREATE k g 0",
            "MEMORY USAGE k",
            "EVAL script 2 k other arg",
            "FCALL f 1 k",
            "ZUNION 2 k l",
            "BLMPOP 0 1 k LEFT",
            "XREAD COUNT 1 STREAMS k l 0 0",
            "XREADGROUP GROUP g c STREAMS k >",
            "MIGRATE host 1 k 0 100",
            "MIGRATE host 1 \"\" 0 100 KEYS k l",
            "ZUNIONSTORE k 2 a b",
            "SSUBSCRIBE k",
            "SPUBLISH k m",
            "JSON.SET k . 1",
        ] {
            assert_eq!(place(line), Place::Key(b"k"), "{line}");
        }
        for line in ["EVAL script 0", "EVAL script x k", "ZUNION", "XREAD COUNT 1", "PING x", "GET"]
        {
            assert_eq!(place(line), Place::Any, "{line}");
        }
    }

    #[test]
    fn commands_without_keys_have_a_place() {
        assert_eq!(place("DBSIZE"), Place::All(Making::Sum));
        assert_eq!(place("SCRIPT LOAD x"), Place::All(Making::First));
        assert_eq!(place("PUBLISH c m"), Place::Any);
        assert_eq!(place("CONFIG GET save"), Place::Any);
        assert_eq!(place("CONFIG SET save x"), Place::Refuse(Refusal::OneServer));
        assert_eq!(place("CLUSTER SLOTS"), Place::Refuse(Refusal::NoCluster));
        assert_eq!(place("select 1"), Place::Any);
        assert_eq!(place("MSET a 1 b"), Place::Refuse(Refusal::OddPairs));
        assert!(Refusal::OneServer.text(b"config").starts_with("ERR CONFIG is about one server"));
    }
}
