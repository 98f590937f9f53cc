//! Clients that mean no good, or do not know better: nobody else suffers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use larder_server::resp::raise_file_limit;
use proptest::prelude::*;

use super::{Client, Door, DoorOptions, encode, eventually, open, options, text};

/// Whether an ordinary client is served.
fn check_service(door: &Door) {
    let mut client = Client::connect(door.address());
    assert_eq!(client.ask("SET probe 1"), "+OK\r\n");
    assert_eq!(client.ask("GET probe"), "$1\r\n1\r\n");
}

/// The memory of this process that is in RAM.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has VmRSS");
    let kibibytes = line.trim().trim_end_matches(" kB").parse::<usize>().expect("it is a number");
    kibibytes * 1024
}

#[test]
fn nested_arrays_end_the_connection() {
    let door = open(&options());
    let mut client = Client::connect(door.address());
    client.send(&b"*1\r\n".repeat(100_000));
    assert_eq!(text(&client.rest()), "-ERR Protocol error: expected '$', got '*'\r\n");
    check_service(&door);
}

#[test]
fn announced_lengths_take_no_memory() {
    let door = open(&options());
    let before = resident_bytes();
    let clients: Vec<Client> = (0..200)
        .map(|_| {
            let mut client = Client::connect(door.address());
            client.send(b"*1000000\r\n$67108864\r\nabc");
            client
        })
        .collect();
    eventually("every piece's arrival", || door.monitor().statistics().input_bytes >= 200 * 24);
    let taken = resident_bytes().saturating_sub(before);
    assert!(taken < 64 << 20, "{taken} bytes for 200 clients that sent 24 bytes each");
    check_service(&door);
    drop(clients);
}

#[test]
fn commands_larger_than_allowed_end_the_connection() {
    let door =
        open(&DoorOptions { bulk_bytes_max: 700_000, query_bytes_max: 1 << 20, ..options() });
    let mut client = Client::connect(door.address());
    let argument = "x".repeat(600_000);
    let command = encode(&["MSET", "a", &argument, "b", &argument]);
    // The server may hang up before it has read all.
    let _ = client.stream.write_all(&command);
    // The error may be lost with the connection, as unread input resets it.
    let rest = text(&client.rest());
    assert!(rest.is_empty() || rest.contains("larger than the query buffer"), "{rest}");
    check_service(&door);
    assert_eq!(Client::connect(door.address()).ask("EXISTS a b"), ":0\r\n");
}

#[test]
fn replies_beyond_the_limit_end_the_connection() {
    let door =
        open(&DoorOptions { bulk_bytes_max: 700_000, reply_bytes_max: 1 << 20, ..options() });
    let mut client = Client::connect(door.address());
    client.ask(&format!("SET big {}", "x".repeat(100_000)));
    let mut mget = vec!["MGET"];
    mget.extend(std::iter::repeat_n("big", 50));
    client.send_command(&mget);
    assert_eq!(client.rest(), b"");
    check_service(&door);
}

#[test]
fn who_sends_too_slowly_is_sent_away() {
    let door = open(&DoorOptions { stall_timeout: Some(Duration::from_millis(300)), ..options() });
    let mut idle = Client::connect(door.address());
    assert_eq!(idle.ask("PING"), "+PONG\r\n");
    let mut slow = Client::connect(door.address());
    slow.send(b"*2\r\n$3\r\nGET\r\n$100\r\n");
    assert_eq!(slow.rest(), b"");
    // Sending nothing at all is no offence.
    assert_eq!(idle.ask("PING"), "+PONG\r\n");
    assert_eq!(door.monitor().statistics().timeouts, 1);
}

#[test]
fn who_does_not_read_holds_nobody_up_and_little_memory() {
    let door = open(&DoorOptions { stall_timeout: Some(Duration::from_secs(1)), ..options() });
    let mut deaf = Client::connect(door.address());
    deaf.ask(&format!("SET big {}", "x".repeat(1 << 20)));
    deaf.stream.set_nonblocking(true).expect("a socket can be made non-blocking");
    let request = encode(&["GET", "big"]).repeat(1000);
    let mut sent = 0;
    while let Ok(count @ 1..) = deaf.stream.write(&request[sent..]) {
        sent += count;
    }
    assert!(sent > 0);
    check_service(&door);
    let waiting = door.monitor().buffer_bytes();
    assert!(waiting < 4 << 20, "{waiting} bytes wait for a client that does not read");
    eventually("its dismissal", || door.monitor().statistics().timeouts == 1);
    check_service(&door);
}

/// Where the child process of the next test connects to.
const IDLE_AT: &str = "LARDER_TEST_IDLE_AT";
const IDLE_CLIENTS: usize = 10_000;

#[test]
fn ten_thousand_idle_clients_cost_little() {
    let door = open(&DoorOptions { clients_max: IDLE_CLIENTS + 10, ..options() });
    check_service(&door);
    let before = resident_bytes();
    // A process may not have enough files open for both ends.
    let mut clients = Command::new(std::env::current_exe().expect("this process has a file"))
        .args(["--exact", "resp::hostile::hold_idle_clients", "--ignored", "--nocapture"])
        .env(IDLE_AT, door.address().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("this program can be started again");
    let pings = || door.monitor().statistics().commands;
    eventually("every client's PING", || pings() >= IDLE_CLIENTS as u64);
    assert_eq!(door.monitor().clients_count(), IDLE_CLIENTS);
    let each = resident_bytes().saturating_sub(before) / IDLE_CLIENTS;
    eprintln!("{each} bytes for each of {IDLE_CLIENTS} idle clients");
    assert!(each <= 4 * 1024, "{each} bytes for each of {IDLE_CLIENTS} idle clients");
    check_service(&door);
    drop(clients.stdin.take());
    assert!(clients.wait().expect("the child can be waited for").success());
}

#[test]
#[ignore = "the other half of `ten_thousand_idle_clients_cost_little`, in a process of its own"]
fn hold_idle_clients() {
    let address = std::env::var(IDLE_AT).expect("the test that starts this says where");
    assert_eq!(raise_file_limit(IDLE_CLIENTS), IDLE_CLIENTS, "`ulimit -Hn` is too low");
    let mut clients: Vec<TcpStream> = (0..IDLE_CLIENTS)
        .map(|_| TcpStream::connect(&address).expect("the door accepts"))
        .collect();
    for client in &mut clients {
        client.write_all(b"PING\r\n").expect("the server reads");
    }
    for client in &mut clients {
        let mut pong = [0; 7];
        client.read_exact(&mut pong).expect("the server answers");
        assert_eq!(&pong, b"+PONG\r\n");
    }
    // Until the test has seen enough and closes the pipe.
    std::io::stdin().read_to_end(&mut Vec::new()).expect("standard input is a pipe");
}

#[test]
fn half_a_command_and_a_sudden_end_leave_nothing_behind() {
    let door = open(&options());
    for length in 1..60 {
        let mut client = Client::connect(door.address());
        client.send(&encode(&["SET", "half", &"x".repeat(40)])[..length]);
        drop(client);
    }
    eventually("the clients' departure", || door.monitor().clients_count() == 0);
    check_service(&door);
    assert_eq!(Client::connect(door.address()).ask("EXISTS half"), ":0\r\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn noise_is_answered_or_ends_the_connection(
        pieces in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                "[*$+:_%~|-][0-9-]{0,12}\r\n".prop_map(String::into_bytes),
                Just(encode(&["GET", "a"])),
                "(GET|SET|MULTI|EXEC|CLIENT|COMMAND|LARDER\\.STATS)( [a-z0-9'\"]{0,6}){0,4}\r\n"
                    .prop_map(String::into_bytes),
            ],
            1..20,
        ),
    ) {
        let door = open(&options());
        for _ in 0..3 {
            let mut client = Client::connect(door.address());
            for piece in &pieces {
                let _ = client.stream.write_all(piece);
            }
            let _ = client.stream.shutdown(std::net::Shutdown::Write);
            client.rest();
        }
        check_service(&door);
    }
}
