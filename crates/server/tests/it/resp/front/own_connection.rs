//! Clients that need a connection to Redis for themselves: transactions, what
//! blocks, channels, tracking.

use larder_testkit::redis::RedisServer;

use super::{Client, counted, encode, eventually, front, text, warm};

#[test]
fn a_transaction_is_aborted_by_a_write_from_anywhere() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut client = Client::connect(door.address());
    let mut through = Client::connect(door.address());
    let mut direct = Client::connect(redis.address());
    for writer in [&mut through, &mut direct] {
        client.ask("SET k old");
        warm(&door, &mut client, "k");
        client.ask("WATCH k");
        writer.ask("SET k new");
        assert_eq!(client.ask("MULTI"), "+OK\r\n");
        assert_eq!(client.ask("GET k"), "+QUEUED\r\n");
        assert_eq!(client.ask("EXEC"), "*-1\r\n");
    }
    client.ask("WATCH k");
    client.ask("MULTI");
    client.ask("SET k mine");
    assert_eq!(client.ask("EXEC"), "*1\r\n+OK\r\n");
    assert_eq!(client.ask("GET k"), "$4\r\nmine\r\n");
    assert_eq!(through.ask("GET k"), "$4\r\nmine\r\n");
}

#[test]
fn what_a_transaction_writes_is_not_read_old() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut client = Client::connect(door.address());
    for number in 0..200 {
        client.ask("GET k");
        client.send(b"MULTI\r\n");
        client.send(format!("SET k {number}\r\nEXEC\r\nGET k\r\n").as_bytes());
        assert_eq!(text(&client.reply()), "+OK\r\n");
        assert_eq!(text(&client.reply()), "+QUEUED\r\n");
        assert_eq!(text(&client.reply()), "*1\r\n+OK\r\n");
        let digits = number.to_string();
        assert_eq!(text(&client.reply()), format!("${}\r\n{digits}\r\n", digits.len()));
    }
}

#[test]
fn a_client_that_blocks_holds_up_nobody() {
    let redis = RedisServer::start();
    let door = front(&redis);
    door.use_threads(1);
    let mut waiting = Client::connect(door.address());
    let mut pipelined = encode(&["SET", "before", "1"]);
    pipelined.extend(encode(&["BLPOP", "queue", "0"]));
    pipelined.extend(encode(&["GET", "before"]));
    waiting.send(&pipelined);
    assert_eq!(text(&waiting.reply()), "+OK\r\n");
    let mut client = Client::connect(door.address());
    for number in 0..100 {
        assert_eq!(client.ask(&format!("SET k {number}")), "+OK\r\n");
    }
    eventually("a blocked client", || redis.info("blocked_clients").as_deref() == Some("1"));
    client.ask("RPUSH queue item");
    assert_eq!(text(&waiting.reply()), "*2\r\n$5\r\nqueue\r\n$4\r\nitem\r\n");
    assert_eq!(text(&waiting.reply()), "$1\r\n1\r\n");
}

#[test]
fn a_blocked_client_that_leaves_takes_nothing_with_it() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut waiting = Client::connect(door.address());
    waiting.send_command(&["BLPOP", "queue", "0"]);
    eventually("a blocked client", || redis.info("blocked_clients").as_deref() == Some("1"));
    drop(waiting);
    eventually("no blocked client", || redis.info("blocked_clients").as_deref() == Some("0"));
    let mut client = Client::connect(door.address());
    client.ask("RPUSH queue item");
    assert_eq!(client.ask("LLEN queue"), ":1\r\n");
}

#[test]
fn connections_are_used_again_and_few() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut client = Client::connect(door.address());
    for _ in 0..100 {
        client.ask("BLPOP none 0.001");
        client.ask("MULTI");
        client.ask("EXEC");
        client.ask("SELECT 3");
        client.ask("SELECT 0");
    }
    let mut others: Vec<_> = (0..100).map(|_| Client::connect(door.address())).collect();
    for other in &mut others {
        assert_eq!(other.ask("PING"), "+PONG\r\n");
        assert_eq!(other.ask("HGET h f"), "$-1\r\n");
    }
    assert!(counted(&door).connects <= 6, "{} were opened", counted(&door).connects);
    let clients: usize =
        redis.info("connected_clients").expect("INFO tells").parse().expect("a number");
    assert!(clients < 12, "{clients} connections to Redis");
}

#[test]
fn messages_reach_subscribers_of_either_protocol() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut direct = Client::connect(redis.address());
    for (hello, subscribed, message) in [
        ("HELLO 2", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", "*3\r\n$7\r\nmessage\r\n"),
        ("HELLO 3", ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", ">3\r\n$7\r\nmessage\r\n"),
    ] {
        let mut subscriber = Client::connect(door.address());
        subscriber.ask(hello);
        assert_eq!(subscriber.ask("SUBSCRIBE c"), subscribed);
        for number in 0..50 {
            assert_eq!(direct.ask(&format!("PUBLISH c {number}")), ":1\r\n");
            let expected = format!("{message}$1\r\nc\r\n${}\r\n", number.to_string().len());
            let found = text(&subscriber.reply());
            assert_eq!(found, format!("{expected}{number}\r\n"));
        }
        if hello == "HELLO 3" {
            assert_eq!(subscriber.ask("SET k 1"), "+OK\r\n");
            assert_eq!(subscriber.ask("GET k"), "$1\r\n1\r\n");
        }
        subscriber.send_command(&["UNSUBSCRIBE", "c"]);
        subscriber.reply();
        assert_eq!(subscriber.ask("RESET"), "+RESET\r\n");
        assert_eq!(subscriber.ask("GET none"), "$-1\r\n");
    }
    eventually("no subscriber", || direct.ask("PUBLISH c x") == ":0\r\n");
}

#[test]
fn monitor_shows_what_redis_does() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut monitor = Client::connect(door.address());
    assert_eq!(monitor.ask("MONITOR"), "+OK\r\n");
    let mut direct = Client::connect(redis.address());
    direct.ask("SET seen 1");
    let deadline = std::time::Instant::now() + super::super::REPLY_WAIT;
    while !text(&monitor.reply()).contains("\"SET\" \"seen\" \"1\"") {
        assert!(std::time::Instant::now() < deadline, "it was not shown");
    }
}

#[test]
fn a_client_may_track_by_itself() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut client = Client::connect(door.address());
    client.ask("HELLO 3");
    client.ask("SET k 1");
    assert_eq!(client.ask("CLIENT TRACKING ON"), "+OK\r\n");
    assert_eq!(client.ask("GET k"), "$1\r\n1\r\n");
    Client::connect(redis.address()).ask("SET k 2");
    assert_eq!(text(&client.reply()), ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
    assert_eq!(client.ask("GET k"), "$1\r\n2\r\n");
    let mut old = Client::connect(door.address());
    let refusal = old.ask("CLIENT TRACKING ON REDIRECT 5");
    assert!(refusal.starts_with("-ERR CLIENT TRACKING cannot redirect"), "{refusal}");
    assert_eq!(old.ask("PING"), "+PONG\r\n");
}

#[test]
fn another_database_has_other_keys() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut client = Client::connect(door.address());
    let mut other = Client::connect(door.address());
    client.ask("SET k zero");
    warm(&door, &mut client, "k");
    client.ask("SELECT 5");
    assert_eq!(client.ask("GET k"), "$-1\r\n");
    client.ask("SET k five");
    assert_eq!(client.ask("GET k"), "$4\r\nfive\r\n");
    assert_eq!(other.ask("GET k"), "$4\r\nzero\r\n");
    other.ask("SWAPDB 0 5");
    assert_eq!(other.ask("GET k"), "$4\r\nfive\r\n");
    assert_eq!(client.ask("GET k"), "$4\r\nzero\r\n");
    assert_eq!(client.ask("SELECT 0"), "+OK\r\n");
    assert_eq!(client.ask("GET k"), "$4\r\nfive\r\n");
}

#[test]
fn a_client_that_has_said_all_still_gets_its_replies() {
    use std::io::{Read, Write};
    let redis = RedisServer::start();
    let door = front(&redis);
    for _ in 0..20 {
        let mut client = std::net::TcpStream::connect(door.address()).expect("it listens");
        client.write_all(b"MULTI\r\nSET k v\r\nEXEC\r\n").expect("it is taken");
        client.shutdown(std::net::Shutdown::Write).expect("it is open");
        let mut replies = String::new();
        client.read_to_string(&mut replies).expect("it ends");
        assert_eq!(replies, "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n");
    }
}

#[test]
fn nobody_debugs_the_scripts_of_others() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut client = Client::connect(door.address());
    assert!(client.ask("SCRIPT DEBUG YES").starts_with("-ERR SCRIPT DEBUG"));
    assert_eq!(client.ask("SCRIPT EXISTS x"), "*1\r\n:0\r\n");
}

#[test]
fn what_redis_was_told_of_a_client_does_not_stay_with_its_connection() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut client = Client::connect(door.address());
    client.ask("MULTI");
    client.ask("CLIENT SETNAME mine");
    assert_eq!(client.ask("EXEC"), "*1\r\n+OK\r\n");
    assert_eq!(client.ask("HGET h f"), "$-1\r\n");
    eventually("no such connection", || {
        !redis.command(&["CLIENT", "LIST"]).text().contains("name=mine")
    });
}

#[test]
fn a_list_is_not_taken_for_a_message() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut client = Client::connect(door.address());
    client.ask("SUBSCRIBE c");
    client.ask("UNSUBSCRIBE c");
    for first in ["message", "subscribe"] {
        client.ask("DEL l");
        client.ask(&format!("RPUSH l {first} c 1"));
        assert!(client.ask("LRANGE l 0 -1").starts_with("*3\r\n"));
    }
    // This waits for all that is owed.
    assert_eq!(client.ask("CLIENT GETNAME"), "$-1\r\n");
    assert_eq!(client.ask("RESET"), "+RESET\r\n");
}
