//! The same commands to this door and to a real redis-server: the replies must
//! be the same to the byte, in RESP2 and in RESP3, errors included.

use std::net::SocketAddr;

use larder_testkit::redis::RedisServer;

use super::{Client, encode, open, options, text};

/// Runs a script on a Redis and on a door.
fn check(script: &str) {
    let redis = RedisServer::start();
    let door = open(&options());
    compare(redis.address(), door.address(), script);
}

/// Runs a script on fresh connections to both, one command a line with words in
/// inline quoting, and compares each reply. `+N` before a command says that it has
/// N replies.
pub(super) fn compare(redis: SocketAddr, larder: SocketAddr, script: &str) {
    let mut different = Vec::new();
    for hello in ["", "HELLO 3"] {
        let mut expected = Client::connect(redis);
        let mut found = Client::connect(larder);
        for client in [&mut expected, &mut found] {
            client.ask("FLUSHALL");
            if !hello.is_empty() {
                client.ask(hello);
            }
        }
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (count, line) = match line.strip_prefix('+').and_then(|rest| rest.split_once(' ')) {
                Some((count, line)) => (count.parse().expect("a number"), line),
                None => (1, line),
            };
            let command = encode(&words(line));
            expected.send(&command);
            found.send(&command);
            let [expected, found] = [&mut expected, &mut found]
                .map(|client| (0..count).map(|_| text(&client.reply())).collect::<String>());
            if found != expected {
                different
                    .push(format!("{hello} {line}\n  redis:  {expected:?}\n  larder: {found:?}"));
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// Splits at spaces; `"…"` keeps them and `\r`, `\n`, `\0` stand for bytes.
fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    for character in line.chars() {
        match character {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            ' ' if !is_quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
        .into_iter()
        .map(|word| {
            word.replace("\\r", "\r").replace("\\n", "\n").replace("\\0", "\0").into_bytes()
        })
        .collect()
}

#[test]
fn connection_commands() {
    check(
        r#"
        PING
        ping hello
        PING "with space"
        PING a b
        ECHO message
        ECHO
        ECHO a b
        SELECT 0
        SELECT -1
        SELECT 99
        SELECT x
        SELECT 99999999999999999999
        SELECT
        CLIENT GETNAME
        CLIENT SETNAME my-name
        CLIENT GETNAME
        CLIENT SETNAME "with space"
        CLIENT SETNAME "line\nbreak"
        CLIENT SETNAME
        CLIENT SETNAME a b
        CLIENT SETNAME ""
        CLIENT GETNAME
        CLIENT GETREDIR
        CLIENT NO-EVICT ON
        CLIENT NO-EVICT OFF
        CLIENT NO-EVICT MAYBE
        CLIENT REPLY MAYBE
        CLIENT REPLY ON
        CLIENT UNBLOCK 12345
        CLIENT UNBLOCK 12345 TIMEOUT
        CLIENT UNBLOCK 12345 LATER
        CLIENT UNBLOCK x
        CLIENT KILL 127.0.0.1:1
        CLIENT KILL ID 99999
        CLIENT KILL ID 0
        CLIENT KILL ID x
        CLIENT KILL TYPE nothing
        CLIENT KILL TYPE pubsub
        CLIENT KILL USER nobody
        CLIENT KILL ADDR 127.0.0.1:1 LADDR 127.0.0.1:2
        CLIENT KILL SKIPME maybe ID 5
        CLIENT KILL ID
        CLIENT KILL NOTHING 5
        CLIENT KILL ID 5 TYPE
        CLIENT KILL
        CLIENT LIST TYPE nothing
        CLIENT LIST TYPE pubsub
        CLIENT LIST ID x
        CLIENT LIST ID 99999
        CLIENT LIST NOTHING
        CLIENT ID extra
        CLIENT
        CLIENT NOTHING
        CLIENT NOTHING with arguments
        client nothing
        HELLO 1
        HELLO 4
        HELLO x
        HELLO 3 NOTHING
        HELLO 2 AUTH
        HELLO 2 AUTH a
        HELLO 2 SETNAME
        HELLO 2 SETNAME "a b"
        AUTH password
        AUTH default anything
        AUTH nobody anything
        AUTH a b c
        AUTH
        RESET
        RESET now
        CLIENT GETNAME
        "#,
    );
}

#[test]
fn unknown_commands() {
    check(
        r#"
        NOTHING
        nothing a b
        NOTHING "a\r\nb" c
        NOTHING a-very-long-argument-that-goes-on-and-on-and-on-and-on-and-on-and-on-and-on-and-on-and-on-and-on-and-on-and-on-and-on-and-on-and-on-and-on second third
        A-NAME-THAT-IS-FAR-TOO-LONG-A-NAME-THAT-IS-FAR-TOO-LONG-A-NAME-THAT-IS-FAR-TOO-LONG-A-NAME-THAT-IS-FAR-TOO-LONG-A-NAME-THAT-IS-FAR-TOO-LONG x
        NOTHING a b c d e f g h i j k l m n o p q r s t u v w x y z 1 2 3 4 5 6 7 8 9 0 a b c d e f g h i j k l m n o p q r s t u v w x y z
        "NO\r\nTHING" a
        "" a
        GET
        GET a b
        SET a
        get
        MGET
        CONFIG
        CONFIG NOTHING
        CONFIG NOTHING a b
        CONFIG GET
        CONFIG SET a
        CONFIG SET maxmemory
        CONFIG SET no-such-parameter 5
        CONFIG SET maxclients abc
        CONFIG SET maxmemory abc
        CONFIG SET maxmemory 100kib
        CONFIG SET timeout abc
        CONFIG SET maxmemory 1 maxmemory 2
        CONFIG SET timeout 5 maxclients
        CONFIG SET timeout -1
        CONFIG SET databases 5
        CONFIG GET save
        CONFIG GET appendonly
        CONFIG GET no-such-parameter
        CONFIG GET timeout
        CONFIG GET TIMEOUT
        CONFIG RESETSTAT
        CONFIG RESETSTAT now
        CONFIG SET timeout 500
        CONFIG GET timeo?t
        CONFIG SET timeout 0
        COMMAND NOTHING
        COMMAND GETKEYS
        COMMAND GETKEYS GET
        COMMAND GETKEYS NOTHING a
        COMMAND GETKEYS PING
        COMMAND GETKEYS GET a
        COMMAND GETKEYS MSET a 1 b 2
        COMMAND GETKEYS MGET a b c
        COMMAND GETKEYS MEMORY USAGE a
        COMMAND INFO nothing
        COMMAND DOCS nothing
        COMMAND LIST FILTERBY NOTHING x
        COMMAND LIST FILTERBY
        COMMAND LIST FILTERBY PATTERN xyz*
        COMMAND LIST FILTERBY PATTERN getran*
        COMMAND LIST FILTERBY MODULE nothing
        TIME now
        DBSIZE x
        INFO nothing
        "#,
    );
}

#[test]
fn transactions() {
    check(
        r#"
        MULTI
        SET a 1
        INCR a
        GET a
        EXEC
        EXEC
        DISCARD
        MULTI
        MULTI
        WATCH a
        GET a
        EXEC
        MULTI
        NOTHING
        GET a
        EXEC
        MULTI
        GET
        EXEC
        MULTI
        SET a x
        DISCARD
        GET a
        MULTI
        SET a text
        INCR a
        SET b after-the-error
        EXEC
        GET b
        WATCH a
        SET a changed
        MULTI
        GET a
        EXEC
        WATCH a
        UNWATCH
        SET a changed
        MULTI
        GET a
        EXEC
        WATCH a
        MULTI
        DISCARD
        SET a changed
        MULTI
        GET a
        EXEC
        WATCH a no-such-key
        MULTI
        GET a
        EXEC
        WATCH a
        DEL a
        MULTI
        EXEC
        WATCH a
        RENAME b a
        MULTI
        PING
        EXEC
        WATCH a
        EXPIRE a 100
        MULTI
        PING
        EXEC
        WATCH a
        FLUSHALL
        MULTI
        PING
        EXEC
        WATCH
        WATCH never-there
        FLUSHALL
        MULTI
        PING
        EXEC
        MULTI
        PING
        ECHO message
        DBSIZE
        CLIENT SETNAME in-multi
        CLIENT GETNAME
        SELECT 0
        CONFIG GET save
        UNWATCH
        SET k v
        SCAN 0
        RANDOMKEY
        KEYS *
        EXISTS k
        FLUSHALL
        DBSIZE
        TYPE k
        EXEC
        MULTI extra
        EXEC extra
        MULTI
        EXEC
        MULTI
        SELECT 77
        AUTH password
        HELLO 9
        CLIENT NOTHING
        EXEC
        MULTI
        RESET
        EXEC
        "#,
    );
}

#[test]
fn what_aborts_a_transaction() {
    check(
        r#"
        WATCH k
        EXEC
        DISCARD
        SET k 1
        MULTI
        PING
        EXEC
        WATCH k
        GETEX k PERSIST
        GETEX k
        MULTI
        PING
        EXEC
        SET k 1 EX 100
        WATCH k
        GETEX k PERSIST
        MULTI
        PING
        EXEC
        WATCH absent
        SET absent v PXAT 1
        MULTI
        PING
        EXEC
        WATCH absent
        SET absent v XX PXAT 1
        MULTI
        PING
        EXEC
        WATCH k
        EXPIRE k -1
        MULTI
        PING
        EXEC
        "#,
    );
}

#[test]
fn texts_of_rare_mistakes() {
    check(
        r#"
        SELECT 4000000000
        SELECT -4000000000
        SELECT 2147483647
        SELECT 9999999999999999999
        SCAN "\0"
        SCAN "\0x"
        SCAN "0\01"
        SCAN " 0"
        CLIENT UNBLOCK 1 ERROR x
        CLIENT UNBLOCK 1 TIMEOUT x y
        CLIENT UNBLOCK x nothing
        "#,
    );
}

#[test]
fn replies_that_a_transaction_turns_off_and_on() {
    let redis = RedisServer::start();
    let door = open(&options());
    for script in [
        "MULTI|CLIENT REPLY OFF|PING|EXEC|PING|CLIENT REPLY ON",
        "MULTI|PING|CLIENT REPLY OFF|EXEC|ECHO a|CLIENT REPLY ON",
        "MULTI|PING|CLIENT REPLY OFF|PING|CLIENT REPLY ON|PING|EXEC|PING",
        "MULTI|PING|CLIENT REPLY SKIP|PING|PING|EXEC|PING|ECHO a",
        "CLIENT REPLY OFF|MULTI|PING|CLIENT REPLY ON|ECHO a|EXEC|ECHO b",
        "CLIENT REPLY OFF|MULTI|PING|EXEC|PING|CLIENT REPLY ON",
        "CLIENT REPLY SKIP|MULTI|PING|EXEC",
        "WATCH a|SET a 1|MULTI|CLIENT REPLY OFF|EXEC|ECHO a",
    ] {
        let script = script.replace('|', "\r\n") + "\r\nRESET\r\nQUIT\r\n";
        let [expected, found] = [redis.address(), door.address()].map(|address| {
            let mut client = Client::connect(address);
            client.send(script.as_bytes());
            text(&client.rest())
        });
        assert_eq!(found, expected, "{script}");
    }
}

#[test]
fn reads_and_writes() {
    check(
        r#"
        SET k value
        GET k
        get K
        SET k v EX 100
        TTL k
        SET k v NX
        SET k v XX GET
        SET k v BAD
        SET k v EX
        SET k v EX 0
        SET k v EX x
        GET ""
        SET "" empty
        GET ""
        MSET a 1 b 2
        MSET a
        MGET a b c a
        EXISTS a b c a
        TOUCH a c
        DEL a b c
        STRLEN k
        GETRANGE k 0 -1
        TYPE k
        TYPE none
        OBJECT ENCODING k
        OBJECT REFCOUNT k
        SET shared 5
        OBJECT REFCOUNT shared
        COPY shared copy
        OBJECT REFCOUNT copy
        OBJECT ENCODING copy
        INCR copy
        OBJECT REFCOUNT copy
        OBJECT NOTHING k
        OBJECT ENCODING
        OBJECT HELP
        MEMORY NOTHING
        INCR number
        INCRBY number 10
        INCR k
        DBSIZE
        KEYS num*
        SETNX k x
        GETDEL k
        GETDEL k
        APPEND k "a\0b"
        GET k
        "#,
    );
}

#[test]
fn information_about_commands() {
    check(
        r#"
        COMMAND INFO get
        COMMAND INFO GET nothing getrange
        COMMAND INFO client|nothing
        COMMAND INFO echo
        COMMAND INFO multi
        COMMAND INFO client|id
        COMMAND INFO client|getname client|setname
        "#,
    );
}

/// After an error the connection ends, on both.
fn check_protocol_error(input: &[u8]) {
    let redis = RedisServer::start();
    let door = open(&options());
    let rest = |address| {
        let mut client = Client::connect(address);
        client.send(input);
        text(&client.rest())
    };
    assert_eq!(rest(door.address()), rest(redis.address()), "{}", input.escape_ascii());
}

#[test]
fn protocol_errors() {
    for input in [
        &b"*x\r\n"[..],
        b"*-x\r\n",
        b"*99999999999999999999\r\n",
        b"PING\r\n*1\r\n$-5\r\n",
        b"*1\r\n$abc\r\n",
        b"*1\r\n$99999999999\r\n",
        b"*2\r\n$3\r\nGET\r\n:5\r\n",
        b"*2\r\n$3\r\nGET\r\nget\r\n",
        b"*1\r\n*1\r\n*1\r\n",
        b"SET \"a\r\n",
        b"PING 'a'b\r\n",
    ] {
        check_protocol_error(input);
    }
}

#[test]
fn pipelines_however_they_are_cut() {
    let redis = RedisServer::start();
    let door = open(&options());
    let pipeline = [
        &b"SET a 1\r\n"[..],
        &encode(&["SET", "b", "two"]),
        &encode(&["GET", "a"]),
        &encode(&["get", "b"]),
        &encode(&["Get", "none"]),
        &encode(&["GET"]),
        &encode(&["GET", "a"]),
        &encode(&["GET", "a", "b"]),
        b"GET a\r\nGET b\r\n*0\r\n\r\n",
        &encode(&["GET", "b"]).repeat(40),
        &encode(&["MULTI"]),
        &encode(&["GET", "a"]).repeat(3),
        &encode(&["EXEC"]),
        &encode(&["GET", "a"]),
        &encode(&["INCR", "a"]),
        &encode(&["GET", "a"]).repeat(2),
        &encode(&["CLIENT", "REPLY", "SKIP"]),
        &encode(&["GET", "a"]).repeat(3),
        b"*2\r\n$3\r\nGET\r\n$x\r\n",
    ]
    .concat();
    let rest = |address, piece: usize| {
        let mut client = Client::connect(address);
        for piece in pipeline.chunks(piece) {
            client.send(piece);
        }
        client.finish_sending();
        text(&client.rest())
    };
    let expected = rest(redis.address(), pipeline.len());
    for piece in [pipeline.len(), 1000, 97, 31, 7] {
        Client::connect(door.address()).ask("FLUSHALL");
        assert_eq!(rest(door.address(), piece), expected, "in pieces of {piece}");
    }
}

/// Reads that are answered together stop once enough replies wait; what follows
/// in the pipeline, half a command included, comes after.
#[test]
fn large_replies_to_a_pipeline_that_is_cut() {
    let door = open(&options());
    let mut client = Client::connect(door.address());
    let value = "x".repeat(40_000);
    client.ask(&format!("SET big {value}"));
    client.ask("SET other 1");
    let big = format!("${}\r\n{value}\r\n", value.len());
    let get = encode(&["GET", "big"]);
    let last = encode(&["GET", "other"]);
    for cut in 1..last.len() {
        for count in [3, 4, 20] {
            client.send(&[&get.repeat(count), &last[..cut]].concat());
            for _ in 0..count {
                assert!(client.reply() == big.as_bytes(), "{count} reads, cut at {cut}");
            }
            client.send(&last[cut..]);
            assert_eq!(text(&client.reply()), "$1\r\n1\r\n", "{count} reads, cut at {cut}");
        }
    }
}

#[test]
fn inline_commands() {
    let redis = RedisServer::start();
    let door = open(&options());
    for input in [
        &b"PING\r\n"[..],
        b"PING\n",
        b"  PING   \"a b\"  \r\n",
        b"\r\n\r\nECHO 'it''s'\r\nPING\r\n",
        b"ECHO \"\\x41\\n\\t\\\"\"\r\n",
        b"ECHO 'a\\'b'\r\n",
        b"*0\r\nPING\r\n",
        b"*-1\r\nPING\r\n",
    ] {
        let rest = |address| {
            let mut client = Client::connect(address);
            client.send(input);
            client.finish_sending();
            text(&client.rest())
        };
        assert_eq!(rest(door.address()), rest(redis.address()), "{}", input.escape_ascii());
    }
}

#[test]
fn passwords() {
    let redis = RedisServer::start_with(&["--requirepass", "secret"]);
    let door = open(&super::DoorOptions { password: Some("secret".to_owned()), ..options() });
    let mut expected = Client::connect(redis.address());
    let mut found = Client::connect(door.address());
    for line in [
        "PING",
        "GET a",
        "NOTHING",
        "GET",
        "MULTI",
        "HELLO 3",
        "HELLO 2 AUTH default wrong",
        "HELLO 2 AUTH nobody secret",
        "AUTH wrong",
        "AUTH default wrong",
        "AUTH nobody secret",
        "AUTH secret",
        "PING",
        "AUTH default secret",
        "RESET",
        "PING",
        "AUTH wrong",
        "HELLO 3 AUTH default wrong",
        "AUTH secret",
        "MULTI",
        "AUTH wrong",
        "EXEC",
        "PING",
    ] {
        assert_eq!(found.ask(line), expected.ask(line), "{line}");
    }
}
