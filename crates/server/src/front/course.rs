//! Which way a command takes: from memory, over a connection that all share, or
//! over one of its own; and what it may change. One table.
//!
//! A command that is not in the table gets a connection for itself, since it
//! may block, and counts as a write of keys that nobody knows.

use std::sync::LazyLock;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::resp::command::KeySpec;

/// The way of one command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Course {
    /// A string is read: from memory if it is there.
    Read(Read),
    /// Over a shared connection.
    Shared(Touches),
    /// Over a connection of its own, for this one call: it may block, or is
    /// needed when others do.
    Apart(Touches),
    /// As [`Course::Apart`] if one of its arguments is `BLOCK`.
    MayBlock(Touches),
    /// It changes what the connection is for Redis: the client gets one of its
    /// own until that has passed.
    Pins(Pin),
    /// Larder answers it.
    Own,
    /// `CLIENT`: it depends on the subcommand.
    Client,
    /// `INFO`: Larder answers for the section `larder`.
    Info,
    /// `SELECT`.
    Select,
    /// What only a replica says.
    Replica,
}

/// A read of strings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Read {
    Get,
    Mget,
    Strlen,
    Getrange,
    Exists,
}

/// Which keys a command may change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Touches {
    Nothing,
    Keys(KeySpec),
    /// Some of its arguments.
    Arguments,
    /// Some of its arguments, and others.
    Unknown,
    Everything,
}

/// Why a client needs a connection of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pin {
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    Subscribe,
    Monitor,
    Tracking,
}

/// Longer names are not in the table.
const NAME_BYTES_MAX: usize = 24;

impl Course {
    /// The way of the command with this name, in whatever case.
    pub(crate) fn of(name: &[u8]) -> Self {
        const UNKNOWN: Course = Course::Apart(Touches::Unknown);
        if name.len() > NAME_BYTES_MAX {
            return UNKNOWN;
        }
        let mut folded = [0; NAME_BYTES_MAX];
        let folded = &mut folded[..name.len()];
        folded.copy_from_slice(name);
        folded.make_ascii_lowercase();
        match TABLE.get(&*folded) {
            Some(course) => *course,
            None if folded.starts_with(b"larder.") => Self::Own,
            None => UNKNOWN,
        }
    }
}

type Table = HashMap<&'static [u8], Course, FixedState>;

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table::default();
    for (course, names) in COURSES {
        for name in names.split_ascii_whitespace() {
            let previous = table.insert(name.as_bytes(), *course);
            debug_assert_eq!(previous, None, "{name} is there twice");
        }
    }
    table
});

const fn keys(first: usize, last: i32, step: usize) -> Touches {
    Touches::Keys(KeySpec { first, last, step })
}

const COURSES: &[(Course, &str)] = &[
    (Course::Read(Read::Get), "get"),
    (Course::Read(Read::Mget), "mget"),
    (Course::Read(Read::Strlen), "strlen"),
    (Course::Read(Read::Getrange), "getrange substr"),
    (Course::Read(Read::Exists), "exists"),
    (
        Course::Shared(Touches::Nothing),
        "bitcount bitfield_ro bitpos command dbsize dump echo eval_ro evalsha_ro expiretime \
         fcall_ro geodist geohash geopos georadius_ro georadiusbymember_ro geosearch getbit hexists \
         hget hgetall hkeys hlen hmget hrandfield hscan hstrlen httl hpttl hexpiretime \
         hpexpiretime hvals keys lastsave lcs lindex llen lolwut lpos lrange memory object \
         pexpiretime pttl publish pubsub randomkey role scan scard sdiff sinter sintercard \
         sismember smembers smismember sort_ro spublish srandmember sscan sunion time touch ttl \
         type xinfo xlen xpending xrange xrevrange zcard zcount zdiff zinter zintercard zlexcount \
         zmscore zrandmember zrange zrangebylex zrangebyscore zrank zrevrange zrevrangebylex \
         zrevrangebyscore zrevrank zscan zscore zunion",
    ),
    (
        Course::Shared(keys(1, 1, 1)),
        "append bitfield decr decrby expire expireat geoadd getdel getex getset hdel hexpire \
         hexpireat hgetdel hgetex hincrby hincrbyfloat hmset hpersist hpexpire hpexpireat hset \
         hsetex hsetnx incr incrby incrbyfloat linsert lpop lpush lpushx lrem lset ltrim move \
         persist pexpire pexpireat pfadd psetex restore rpop rpush rpushx sadd set setbit setex \
         setnx setrange spop srem xack xackdel xadd xautoclaim xclaim xdel xdelex xsetid \
         xtrim zadd zincrby zpopmax zpopmin zrem zremrangebylex zremrangebyrank zremrangebyscore",
    ),
    (Course::Shared(keys(1, 2, 1)), "copy lmove rename renamenx rpoplpush smove"),
    // PFCOUNT notes in the value what it counted.
    (Course::Shared(keys(1, -1, 1)), "del pfcount unlink"),
    (Course::Shared(keys(2, 2, 1)), "xgroup"),
    (Course::Shared(keys(1, -1, 2)), "mset msetnx"),
    (
        Course::Shared(Touches::Arguments),
        "bitop geosearchstore georadius georadiusbymember lmpop pfmerge sdiffstore sinterstore sort \
         sunionstore zdiffstore zinterstore zmpop zrangestore zunionstore",
    ),
    (Course::Shared(Touches::Unknown), "eval evalsha fcall"),
    (Course::Shared(Touches::Everything), "flushall flushdb swapdb"),
    (
        Course::Apart(Touches::Nothing),
        "acl asking bgrewriteaof bgsave cluster config function latency module readonly readwrite \
         save script slowlog wait waitaof",
    ),
    (
        Course::Apart(Touches::Arguments),
        "blmove blmpop blpop brpop brpoplpush bzmpop bzpopmax bzpopmin migrate",
    ),
    (Course::Apart(Touches::Everything), "debug failover replicaof shutdown slaveof"),
    (Course::MayBlock(Touches::Nothing), "xread"),
    (Course::MayBlock(Touches::Arguments), "xreadgroup"),
    (Course::Pins(Pin::Multi), "multi"),
    (Course::Pins(Pin::Exec), "exec"),
    (Course::Pins(Pin::Discard), "discard"),
    (Course::Pins(Pin::Watch), "watch"),
    (Course::Pins(Pin::Unwatch), "unwatch"),
    (
        Course::Pins(Pin::Subscribe),
        "psubscribe punsubscribe ssubscribe subscribe sunsubscribe unsubscribe",
    ),
    (Course::Pins(Pin::Monitor), "monitor"),
    (Course::Own, "auth hello ping quit reset host: post"),
    (Course::Client, "client"),
    (Course::Info, "info"),
    (Course::Select, "select"),
    (Course::Replica, "psync replconf sync"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_any_case() {
        assert_eq!(Course::of(b"GeT"), Course::Read(Read::Get));
        assert_eq!(Course::of(b"LARDER.STATS"), Course::Own);
        assert_eq!(Course::of(b"json.set"), Course::Apart(Touches::Unknown));
        assert_eq!(Course::of(&[b'x'; 1000]), Course::Apart(Touches::Unknown));
        assert_eq!(Course::of(b""), Course::Apart(Touches::Unknown));
    }

    #[test]
    fn names_fit_the_table() {
        for name in COURSES.iter().flat_map(|(_, names)| names.split_ascii_whitespace()) {
            assert!(name.len() <= NAME_BYTES_MAX && name == name.to_lowercase(), "{name}");
        }
    }

    #[test]
    fn every_command_of_the_doors_table_has_a_way() {
        for entry in crate::resp::command_names() {
            let course = Course::of(entry.as_bytes());
            assert_ne!(course, Course::Apart(Touches::Unknown), "{entry}");
        }
    }
}
