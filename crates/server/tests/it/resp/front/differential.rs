//! The same script to a Redis alone and through Larder to another one: the
//! replies must be the same to the byte, in RESP2 and in RESP3.

use larder_testkit::redis::RedisServer;

use super::super::against_redis::compare;
use super::{counted, front};

/// Runs a script on both.
fn check(script: &str) {
    let alone = RedisServer::start();
    let behind = RedisServer::start();
    let door = front(&behind);
    compare(alone.address(), door.address(), script);
    assert!(counted(&door).passed > 0);
}

#[test]
fn strings_read_again_and_again() {
    let script = r#"
        GET a
        SET a 1
        GET a
        GET a
        STRLEN a
        GETRANGE a 0 -1
        SUBSTR a 0 0
        EXISTS a a none
        MGET a none
        MGET a none
        APPEND a 23
        GET a
        GETRANGE a -2 5
        GETRANGE a x 5
        INCR a
        GET a
        DECRBY a 4
        GET a
        GETSET a text
        GET a
        GETDEL a
        GET a
        EXISTS a
        STRLEN a
        GETRANGE a 0 5
        SET a x NX
        SET a y NX
        GET a
        SET a y XX GET
        GET a
        SETEX b 100 v
        GET b
        GET b
        TTL b
        PERSIST b
        TTL b
        GET b
        MSET a 1 b 2 c 3
        MGET a b c d
        MGET a b c d
        MSETNX a 9 d 9
        MGET a b c d
        SETRANGE a 3 xyz
        GET a
        SETBIT a 7 1
        GET a
        BITFIELD a SET u8 0 65
        GET a
        BITOP NOT e a
        GET e
        BITCOUNT a
        RENAME a z
        GET a
        GET z
        COPY z a
        GET a
        DEL a z
        MGET a z
        UNLINK b none
        EXISTS b c
        INCRBYFLOAT f 1.5
        GET f
        LPUSH list 1
        GET list
        GET list
        STRLEN list
        MGET list c
        EXISTS list
        SET list now-a-string
        GET list
        GET
        GET a b
        MGET
        STRLEN
        SET
        EXISTS
        GETRANGE a 1
        SET bin "\r\n\0 x"
        GET bin
        GET bin
        FLUSHALL
        GET c
        MGET c bin
        PEXPIRE c 1
    "#;
    // Twice, so that the second time finds memory as the first one left it.
    check(&format!("{script}\n{script}"));
}

#[test]
fn other_types() {
    check(
        r#"
        HSET h f 1 g 2
        HGET h f
        HGETALL h
        HMGET h f none
        HINCRBYFLOAT h f 0.25
        HDEL h f
        HSCAN h 0
        RPUSH l a b c d
        LRANGE l 0 -1
        LPOP l 2
        LINSERT l BEFORE c x
        LMOVE l m LEFT RIGHT
        LMPOP 2 none l LEFT COUNT 2
        LPOS l d
        SADD s 1 2 3
        SMEMBERS s
        SISMEMBER s 1
        SINTERCARD 1 s
        SMOVE s t 1
        SUNIONSTORE u s t
        SCARD u
        ZADD z 1 a 2.5 b 3 c
        ZRANGE z 0 -1 WITHSCORES
        ZSCORE z b
        ZINCRBY z 0.5 a
        ZPOPMIN z
        ZRANGESTORE zz z 0 -1
        ZMSCORE z a b
        ZUNION 2 z zz WITHSCORES
        XADD x 1-1 f v
        XADD x 1-2 f w
        XLEN x
        XRANGE x - +
        XREAD COUNT 1 STREAMS x 0
        XGROUP CREATE x g 0
        XREADGROUP GROUP g me COUNT 1 STREAMS x >
        XACK x g 1-1
        XPENDING x g
        PFADD hll a b c
        PFCOUNT hll
        GEOADD geo 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
        GEODIST geo Palermo Catania km
        GEOSEARCH geo FROMLONLAT 15 37 BYRADIUS 200 km ASC
        SORT l ALPHA
        SORT s ALPHA STORE sorted
        LRANGE sorted 0 -1
        TYPE z
        OBJECT ENCODING s
        DUMP none
        HGET l x
        LPUSH h 1
        SCAN 0 COUNT 1000 TYPE stream
        KEYS x*
        DBSIZE
        RANDOMKEY extra
        EXPIRE x 100
        TTL x
        EXPIRETIME none
        TOUCH x l none
        "#,
    );
}

#[test]
fn scripts_transactions_and_everything_else() {
    check(
        r#"
        EVAL "return {1, 'two', {3}, false}" 0
        EVAL "return redis.call('set', KEYS[1], ARGV[1])" 1 k v
        GET k
        GET k
        EVAL "redis.call('set', 'k', 'undeclared') return 1" 0
        GET k
        EVAL "return redis.error_reply('MINE x')" 0
        EVALSHA ffffffffffffffffffffffffffffffffffffffff 0
        SCRIPT LOAD "return 7"
        SCRIPT EXISTS ffffffffffffffffffffffffffffffffffffffff
        MULTI
        SET k 1
        INCR k
        GET k
        LPUSH lst a
        EXEC
        GET k
        GET k
        EXEC
        DISCARD
        UNWATCH
        MULTI
        MULTI
        GET
        EXEC
        MULTI
        SET k 9
        DISCARD
        GET k
        WATCH k
        GET k
        MULTI
        GET k
        EXEC
        WATCH k
        SET k changed
        MULTI
        GET k
        EXEC
        GET k
        WATCH k
        UNWATCH
        GET k
        MULTI
        PING
        ECHO hello
        SELECT 0
        EXEC
        MULTI extra
        SET k after-a-refused-multi
        GET k
        SELECT 3
        GET k
        SET k three
        GET k
        SELECT 0
        GET k
        SELECT 99
        SELECT x
        SELECT
        GET k
        SELECT 3
        DBSIZE
        FLUSHDB
        SELECT 0
        MOVE k 3
        GET k
        SWAPDB 0 3
        GET k
        CONFIG GET maxmemory-policy
        CONFIG SET maxmemory-policy noeviction
        CONFIG GET nothing
        COMMAND COUNT
        COMMAND GETKEYS SET a b
        ACL WHOAMI
        NOTHING a b
        NOTHING
        "GE T" a
        OBJECT HELP
        DEBUG HELP
        CLIENT NO-EVICT on
        CLIENT SETNAME me
        CLIENT GETNAME
        CLIENT CACHING YES
        CLIENT TRACKINGINFO
        PUBLISH c m
        PUBSUB CHANNELS
        PUBSUB NUMSUB c
        WAIT 0 0
        XREAD BLOCK 1 STREAMS none 0
        BLPOP none 0.01
        RPUSH blist a b c
        BLPOP blist 1
        BRPOP none blist 1
        BLMOVE blist other LEFT RIGHT 1
        BLMPOP 0.01 1 none LEFT
        BLPOP blist x
        BLPOP
        GET k
        ECHO x
        ECHO
        PING
        PING x
        PING x y
        LOLWUT VERSION 1 x
        MEMORY USAGE none
        LATENCY RESET
        SLOWLOG LEN
        HELLO 9
        RESET
        GET k
        "#,
    );
}

#[test]
fn channels() {
    check(
        r#"
        SUBSCRIBE
        +2 SUBSCRIBE a b
        PING
        PING x
        PSUBSCRIBE p*
        UNSUBSCRIBE a
        SSUBSCRIBE s
        SUNSUBSCRIBE s
        PUNSUBSCRIBE
        UNSUBSCRIBE b
        UNSUBSCRIBE
        GET after
        SET after 1
        GET after
        RPUSH looks-like-a-message subscribe x
        LLEN looks-like-a-message
        "#,
    );
}
