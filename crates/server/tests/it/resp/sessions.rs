//! What a connection knows about its client, and what others do to it.

use std::time::Duration;

use larder_server::resp::User;

use super::{Client, DoorOptions, eventually, open, options, text};

#[test]
fn hello_introduces_the_server_in_the_protocol_asked_for() {
    let door = open(&options());
    let mut client = Client::connect(door.address());
    let hello = client.ask("HELLO 3 SETNAME worker");
    assert!(hello.starts_with("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n"), "{hello}");
    assert!(hello.contains("$5\r\nproto\r\n:3\r\n"), "{hello}");
    assert_eq!(client.ask("CLIENT GETNAME"), "$6\r\nworker\r\n");
    assert_eq!(client.ask("GET none"), "_\r\n");
    assert!(client.ask("HELLO 2").starts_with("*14\r\n"));
    assert_eq!(client.ask("GET none"), "$-1\r\n");
    assert!(client.ask("HELLO").contains(":2\r\n"));
}

#[test]
fn users_open_the_door_with_their_own_password_only() {
    let ann = User { name: "ann".to_owned(), password: "secret".to_owned() };
    let door = open(&DoorOptions { users: vec![ann], ..options() });
    let mut client = Client::connect(door.address());
    assert_eq!(client.ask("GET a"), "-NOAUTH Authentication required.\r\n");
    assert!(client.ask("AUTH secret").starts_with("-ERR AUTH <password> called without"));
    assert!(client.ask("AUTH bob secret").starts_with("-WRONGPASS"));
    assert_eq!(client.ask("AUTH ann secret"), "+OK\r\n");
    assert_eq!(client.ask("GET a"), "$-1\r\n");
    assert!(client.ask("CLIENT INFO").contains(" user=ann "));
    assert!(client.ask("CONFIG GET requirepass").contains("<redacted>"));
    assert_eq!(client.ask("RESET"), "+RESET\r\n");
    assert_eq!(client.ask("GET a"), "-NOAUTH Authentication required.\r\n");
}

#[test]
fn strangers_may_not_send_much() {
    let door = open(&DoorOptions { password: Some("secret".to_owned()), ..options() });
    for (input, error) in [
        (&b"*11\r\n"[..], "unauthenticated multibulk length"),
        (b"*2\r\n$4\r\nAUTH\r\n$16385\r\n", "unauthenticated bulk length"),
    ] {
        let mut client = Client::connect(door.address());
        client.send(input);
        assert_eq!(text(&client.rest()), format!("-ERR Protocol error: {error}\r\n"));
    }
}

#[test]
fn clients_are_listed_and_killed() {
    let door = open(&options());
    let mut one = Client::connect(door.address());
    let mut two = Client::connect(door.address());
    assert_eq!(one.ask("CLIENT SETNAME one"), "+OK\r\n");
    assert_eq!(two.ask("CLIENT SETINFO LIB-NAME lettuce"), "+OK\r\n");
    assert_eq!(two.ask("CLIENT SETINFO LIB-VER 1.2"), "+OK\r\n");
    assert!(two.ask("CLIENT SETINFO COLOUR red").starts_with("-ERR Unrecognized option"));
    let list = one.ask("CLIENT LIST");
    let field = |line: &str, name: &str| {
        let start = format!("{name}=");
        line.split(' ').find_map(|it| it.strip_prefix(&start)).map(str::to_owned)
    };
    let line_of = |name: &str, value: &str| {
        let wanted = format!(" {name}={value} ");
        let line = list.lines().find(|line| format!("{line} ").contains(&wanted));
        line.unwrap_or_else(|| panic!("{list}")).to_owned()
    };
    assert_eq!(field(&line_of("name", "one"), "cmd").as_deref(), Some("client|list"));
    let line = line_of("lib-name", "lettuce");
    assert_eq!(field(&line, "lib-ver").as_deref(), Some("1.2"));
    let address = two.stream.local_addr().expect("the socket is connected").to_string();
    assert_eq!(field(&line, "addr"), Some(address));

    let id = field(&line, "id").expect("every line has an id");
    assert_eq!(one.ask(&format!("CLIENT LIST ID {id}")).matches("addr=").count(), 2);
    assert_eq!(one.ask(&format!("CLIENT KILL ID {id}")), ":1\r\n");
    assert_eq!(two.rest(), b"");
    eventually("the client's departure", || door.monitor().clients_count() == 1);

    let two = Client::connect(door.address());
    let address = two.stream.local_addr().expect("the socket is connected");
    eventually("its arrival", || door.monitor().clients_count() == 2);
    assert_eq!(one.ask(&format!("CLIENT KILL {address}")), "+OK\r\n");
    assert_eq!(one.ask("CLIENT KILL TYPE normal"), ":0\r\n");
    assert_eq!(one.ask("CLIENT KILL TYPE normal SKIPME no"), ":1\r\n");
    assert_eq!(one.rest(), b"");
}

#[test]
fn replies_are_left_out_as_asked() {
    let door = open(&options());
    let mut client = Client::connect(door.address());
    for (line, reply) in [
        ("CLIENT REPLY OFF", None),
        ("SET a 1", None),
        ("GET a", None),
        ("CLIENT REPLY SKIP", None),
        ("CLIENT REPLY ON", Some("+OK\r\n")),
        ("CLIENT REPLY SKIP", None),
        ("INCR a", None),
        ("GET a", Some("$1\r\n2\r\n")),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        client.send_command(&words);
        if let Some(reply) = reply {
            assert_eq!(text(&client.reply()), reply, "{line}");
        }
    }
}

#[test]
fn those_beyond_the_limit_are_told_so() {
    let door = open(&DoorOptions { clients_max: 2, ..options() });
    let mut clients = [Client::connect(door.address()), Client::connect(door.address())];
    for client in &mut clients {
        assert_eq!(client.ask("PING"), "+PONG\r\n");
    }
    let mut third = Client::connect(door.address());
    assert_eq!(text(&third.rest()), "-ERR max number of clients reached\r\n");
    assert_eq!(clients[0].ask("CONFIG SET maxclients 3"), "+OK\r\n");
    assert_eq!(Client::connect(door.address()).ask("PING"), "+PONG\r\n");
    assert_eq!(door.monitor().statistics().rejected_connections, 1);
}

#[test]
fn who_idles_too_long_is_sent_away() {
    let door = open(&DoorOptions { idle_timeout: Some(Duration::from_millis(200)), ..options() });
    let mut client = Client::connect(door.address());
    assert_eq!(client.ask("PING"), "+PONG\r\n");
    assert_eq!(client.rest(), b"");
    assert_eq!(door.monitor().statistics().timeouts, 1);
}

#[test]
fn dangerous_commands_are_off_by_default() {
    let door = open(&DoorOptions { dangerous_commands: Vec::new(), ..options() });
    let mut client = Client::connect(door.address());
    for line in ["KEYS *", "FLUSHALL", "flushdb ASYNC"] {
        let reply = client.ask(line);
        let name = line.split(' ').next().unwrap_or(line).to_uppercase();
        let remedy = format!("`dangerous_commands = [\"{name}\"]`");
        assert!(reply.starts_with("-ERR") && reply.contains(&remedy), "{reply}");
    }
    assert_eq!(client.ask("MULTI"), "+OK\r\n");
    assert!(client.ask("FLUSHALL").starts_with("-ERR"));
    assert!(client.ask("EXEC").starts_with("-EXECABORT"));
}

#[test]
fn info_counts_what_happened() {
    let door = open(&options());
    let mut client = Client::connect(door.address());
    for line in ["SET a 1", "GET a", "GET b", "NOTHING", "INCR a", "SET x y", "INCR x"] {
        client.ask(line);
    }
    let info = client.ask("INFO");
    for line in [
        "redis_mode:standalone",
        "connected_clients:1",
        "total_connections_received:1",
        "keyspace_hits:1",
        "keyspace_misses:1",
        "db0:keys=2,expires=0,avg_ttl=0",
        "# Larder",
    ] {
        assert!(info.lines().any(|it| it == line), "{line} in {info}");
    }
    assert!(!info.contains("# Commandstats"));
    let commands = client.ask("INFO commandstats");
    assert!(
        commands.contains("cmdstat_incr:calls=2,rejected_calls=0,failed_calls=1"),
        "{commands}"
    );
    assert!(client.ask("INFO all").contains("# Commandstats"));
    assert_eq!(client.ask("CONFIG RESETSTAT"), "+OK\r\n");
    assert!(client.ask("INFO stats").contains("keyspace_hits:0"));
    assert!(!client.ask("INFO commandstats").contains("cmdstat_incr"));
}

#[test]
fn settings_change_while_the_server_runs() {
    let door = open(&options());
    let mut client = Client::connect(door.address());
    assert_eq!(client.ask("CONFIG SET maxmemory 10mb maxmemory-policy noeviction"), "+OK\r\n");
    assert_eq!(
        client.ask("CONFIG GET maxmemory*"),
        "*4\r\n$9\r\nmaxmemory\r\n$8\r\n10485760\r\n$16\r\nmaxmemory-policy\r\n$10\r\nnoeviction\r\n"
    );
    assert_eq!(client.ask("CONFIG SET proto-max-bulk-len 1mb"), "+OK\r\n");
    client.send(b"*2\r\n$3\r\nGET\r\n$1048577\r\n");
    assert_eq!(text(&client.rest()), "-ERR Protocol error: invalid bulk length\r\n");
}

#[test]
fn commands_describe_themselves() {
    let door = open(&options());
    let mut client = Client::connect(door.address());
    let count = client.ask("COMMAND COUNT");
    let count: usize = count.trim_start_matches(':').trim().parse().expect("a count is a number");
    assert!(count > 60, "{count}");
    assert!(client.ask("COMMAND").starts_with(&format!("*{count}\r\n")));
    assert!(client.ask("COMMAND DOCS").starts_with(&format!("*{}\r\n", count * 2)));
    assert!(client.ask("COMMAND DOCS larder.explain").contains("which cache a key belongs to"));
    assert!(client.ask("COMMAND LIST").contains("client|setname"));
    assert!(client.ask("COMMAND LIST FILTERBY PATTERN larder.*").contains("larder.remove"));
    assert!(client.ask("COMMAND LIST FILTERBY ACLCAT string").contains("getrange"));
    for container in ["CLIENT", "COMMAND", "CONFIG", "OBJECT", "MEMORY"] {
        let help = client.ask(&format!("{container} HELP"));
        assert!(help.contains(&format!("+{container} <subcommand>")), "{help}");
    }
}

#[test]
fn a_browser_is_not_talked_to() {
    let door = open(&options());
    let mut client = Client::connect(door.address());
    client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET a 1\r\n");
    assert_eq!(client.rest(), b"");
    assert_eq!(Client::connect(door.address()).ask("GET a"), "$-1\r\n");
}
