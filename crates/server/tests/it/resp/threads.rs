//! Connections that move between the threads of a door.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder_server::resp::DoorOptions;

use super::{Client, encode, eventually, open, options};

const THREADS: usize = 4;
const CLIENTS: usize = 16;
const ROUNDS: usize = 300;

fn many_threads() -> DoorOptions {
    DoorOptions { threads: THREADS, ..options() }
}

/// Counts its own key up, in pipelines and transactions, and checks every reply.
fn count_up(mut client: Client, number: usize) {
    let key = format!("counter:{number}");
    client.ask(&format!("CLIENT SETNAME mover-{number}"));
    let id = client.ask("CLIENT ID");
    let increment = encode(&["INCR", &key]);
    for round in 0..ROUNDS {
        client.send(&increment.repeat(3));
        for step in 1..=3 {
            assert_eq!(client.reply(), format!(":{}\r\n", round * 5 + step).as_bytes());
        }
        // The transaction is opened in one read and ends in others.
        assert_eq!(client.ask("MULTI"), "+OK\r\n");
        for _ in 0..2 {
            assert_eq!(client.ask(&format!("INCR {key}")), "+QUEUED\r\n");
        }
        let expected = format!("*2\r\n:{}\r\n:{}\r\n", round * 5 + 4, round * 5 + 5);
        assert_eq!(client.ask("EXEC"), expected);
    }
    assert_eq!(client.ask("CLIENT ID"), id);
    assert_eq!(client.ask("CLIENT GETNAME"), format!("$8\r\nmover-{number:02}\r\n"));
}

#[test]
fn whoever_moves_to_another_thread_loses_nothing() {
    let door = open(&many_threads());
    let left = AtomicUsize::new(CLIENTS);
    std::thread::scope(|scope| {
        for number in 10..10 + CLIENTS {
            let client = Client::connect(door.address());
            let left = &left;
            scope.spawn(move || {
                // Counted down by a panic as well.
                let _guard = CountDown(left);
                count_up(client, number);
            });
        }
        for count in (1..=THREADS).cycle() {
            if left.load(Ordering::Relaxed) == 0 {
                break;
            }
            door.use_threads(count);
            assert_eq!(door.monitor().threads_in_use(), count);
            std::thread::yield_now();
        }
    });
}

struct CountDown<'a>(&'a AtomicUsize);

impl Drop for CountDown<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn who_is_killed_or_left_while_moving_is_gone() {
    let door = open(&many_threads());
    let mut killer = Client::connect(door.address());
    for count in (1..=THREADS).cycle().take(100) {
        let mut victim = Client::connect(door.address());
        let id = victim.ask("CLIENT ID").trim_start_matches(':').trim_end().to_owned();
        door.use_threads(count);
        // The reply is on its way when the client is killed, or it is not.
        victim.send_command(&["PING"]);
        assert_eq!(killer.ask(&format!("CLIENT KILL ID {id}")), ":1\r\n");
        victim.rest();
    }
    // Its end is seen a moment before the door forgets the client.
    eventually("only the killer is left", || {
        killer.ask("CLIENT LIST").matches(" addr=").count() == 1
    });
}

#[tokio::test]
async fn a_door_closes_while_clients_move() {
    for round in 0..20 {
        let door = open(&many_threads());
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::connect(door.address())).collect();
        for client in &mut clients {
            assert_eq!(client.ask("PING"), "+PONG\r\n");
        }
        door.use_threads(1 + round % THREADS);
        for client in &mut clients {
            client.send_command(&["PING"]);
        }
        assert_eq!(door.close(Duration::from_secs(10)).await, 0, "nobody is cut off");
    }
}
