//! Transactions go to where their first key is.

use larder_testkit::redis::Cluster;

use super::super::super::text;
use super::{Client, counted, front_of, key_of, warm};

#[test]
fn transactions_run_at_the_server_of_their_first_key() {
    let cluster = Cluster::start();
    let door = front_of(&cluster);
    let mut client = Client::connect(door.address());
    let ask_all = |client: &mut Client, commands: &str, expected: &[&str]| {
        for (command, expected) in commands.split("; ").zip(expected) {
            assert_eq!(client.ask(command), *expected, "{command}");
        }
    };
    for key in (0..3).map(key_of) {
        ask_all(
            &mut client,
            &format!("MULTI; SET {key} 1; INCR {key}; EXEC; GET {key}"),
            &["+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "*2\r\n+OK\r\n:2\r\n", "$1\r\n2\r\n"],
        );
        // What names no key may come first.
        ask_all(
            &mut client,
            &format!("MULTI; PING; ECHO x; INCR {key}; EXEC"),
            &[
                "+OK\r\n",
                "+QUEUED\r\n",
                "+QUEUED\r\n",
                "+QUEUED\r\n",
                "*3\r\n+PONG\r\n$1\r\nx\r\n:3\r\n",
            ],
        );
        ask_all(
            &mut client,
            &format!("MULTI; SET {key} 9; DISCARD; GET {key}"),
            &["+OK\r\n", "+QUEUED\r\n", "+OK\r\n", "$1\r\n3\r\n"],
        );
    }
    ask_all(&mut client, "MULTI; EXEC", &["+OK\r\n", "*0\r\n"]);
    ask_all(&mut client, "MULTI; DISCARD", &["+OK\r\n", "+OK\r\n"]);
    ask_all(&mut client, "MULTI; PING; EXEC", &["+OK\r\n", "+QUEUED\r\n", "*1\r\n+PONG\r\n"]);
    ask_all(&mut client, "MULTI; RESET; GET none", &["+OK\r\n", "+RESET\r\n", "$-1\r\n"]);
    assert!(client.ask("EXEC").starts_with("-ERR EXEC without MULTI"));
    across_slots(&mut client);
    mistakes(&mut client);
    watched(&cluster, &door, &mut client);
    for _ in 0..50 {
        client.ask("MULTI");
        client.ask("INCR counted");
        client.ask("EXEC");
    }
    let connections = counted(&door).connects;
    assert!(connections < 40, "{connections} were opened");
}

fn across_slots(client: &mut Client) {
    let [here, there] = [0, 1].map(key_of);
    client.ask(&format!("SET {here} before"));
    client.ask("MULTI");
    assert_eq!(client.ask(&format!("SET {here} after")), "+QUEUED\r\n");
    let reply = client.ask(&format!("SET {there} after"));
    assert_eq!(reply, "-CROSSSLOT Keys in request don't hash to the same slot\r\n");
    assert!(client.ask("EXEC").starts_with("-EXECABORT"));
    assert_eq!(client.ask(&format!("GET {here}")), "$6\r\nbefore\r\n");
    client.ask("MULTI");
    assert!(client.ask("DBSIZE").starts_with("-ERR this command is for every server"));
    assert!(client.ask("EXEC").starts_with("-EXECABORT"));
}

fn mistakes(client: &mut Client) {
    let key = key_of(2);
    client.ask("MULTI");
    assert!(client.ask("GET").starts_with("-ERR wrong number of arguments"));
    client.ask(&format!("SET {key} x"));
    assert!(client.ask("EXEC").starts_with("-EXECABORT"));
    client.ask("MULTI");
    assert_eq!(client.ask("MULTI"), "-ERR MULTI calls can not be nested\r\n");
    assert!(client.ask(&format!("WATCH {key}")).starts_with("-ERR WATCH inside MULTI"));
    client.ask("DISCARD");
    client.ask("MULTI");
    assert!(client.ask("HELLO 3").starts_with("-ERR Command not allowed inside a transaction"));
    assert!(client.ask("EXEC").starts_with("-EXECABORT"));
    // One after the other, in one go.
    let pipeline =
        format!("MULTI\r\nSET {key} 1\r\nEXEC\r\nGET {key}\r\nMULTI\r\nINCR {key}\r\nEXEC\r\n");
    client.send(pipeline.as_bytes());
    let replies: String = (0..7).map(|_| text(&client.reply())).collect();
    assert_eq!(replies, "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n$1\r\n1\r\n+OK\r\n+QUEUED\r\n*1\r\n:2\r\n");
}

fn watched(cluster: &Cluster, door: &larder_server::resp::Door, client: &mut Client) {
    let [here, there] = [1, 2].map(key_of);
    let mut direct = Client::connect(cluster.servers()[1].address());
    for is_changed in [false, true] {
        client.ask(&format!("SET {here} 1"));
        client.ask(&format!("SET {there} 7"));
        warm(door, client, &here);
        assert_eq!(client.ask(&format!("WATCH {here}")), "+OK\r\n");
        // Reads of other slots go where they belong.
        assert_eq!(client.ask(&format!("GET {there}")), "$1\r\n7\r\n");
        assert_eq!(client.ask(&format!("GET {here}")), "$1\r\n1\r\n");
        assert_eq!(client.ask(&format!("MGET {here} {there}")), "*2\r\n$1\r\n1\r\n$1\r\n7\r\n");
        if is_changed {
            direct.ask(&format!("SET {here} 2"));
        }
        client.ask("MULTI");
        client.ask(&format!("INCR {here}"));
        let expected = if is_changed { "*-1\r\n" } else { "*1\r\n:2\r\n" };
        assert_eq!(client.ask("EXEC"), expected);
    }
    client.ask(&format!("WATCH {here}"));
    let reply = client.ask(&format!("WATCH {there}"));
    assert!(reply.starts_with("-CROSSSLOT"), "{reply}");
    assert_eq!(client.ask("UNWATCH"), "+OK\r\n");
    // Whoever listens to channels may ask for keys, in RESP3.
    client.ask("HELLO 3");
    client.ask("SUBSCRIBE c");
    assert_eq!(client.ask(&format!("GET {there}")), "$1\r\n7\r\n");
    assert_eq!(client.ask(&format!("INCR {here}")), ":3\r\n");
    assert_eq!(client.ask("RESET"), "+RESET\r\n");
}
