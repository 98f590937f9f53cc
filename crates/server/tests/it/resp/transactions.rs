//! What `EXEC` promises while others write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Client, open, options, text};

#[test]
fn nobody_sees_half_a_transaction() {
    let door = open(&options());
    let address = door.address();
    let stop = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut client = Client::connect(address);
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) || rounds == 0 {
                let values = client.ask("MGET left right far");
                let values: Vec<&str> = values.lines().skip(2).step_by(2).collect();
                assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "{values:?}");
                rounds += 1;
            }
        }
    });
    let mut writer = Client::connect(address);
    writer.ask("MSET left 0 right 0 far 0");
    for _ in 0..2000 {
        writer.send(b"MULTI\r\nINCR left\r\nINCR right\r\nINCR far\r\nEXEC\r\n");
        for _ in 0..4 {
            writer.reply();
        }
        let numbers = text(&writer.reply());
        assert!(numbers.starts_with("*3\r\n"), "{numbers}");
    }
    stop.store(true, Ordering::Relaxed);
    reader.join().expect("the reader saw nothing wrong");
}

#[test]
fn watched_counters_lose_no_increment() {
    const WRITERS: usize = 4;
    const INCREMENTS: usize = 200;
    let door = open(&options());
    let address = door.address();
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let mut done = 0;
                while done < INCREMENTS {
                    client.ask("WATCH counter");
                    let value = client.ask("GET counter");
                    let value: u64 =
                        value.lines().nth(1).map_or(0, |it| it.parse().expect("it is a number"));
                    client.ask("MULTI");
                    client.ask(&format!("SET counter {}", value + 1));
                    // A watched key that somebody changed answers with nothing.
                    done += usize::from(client.ask("EXEC").starts_with("*1"));
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().expect("the writer went through");
    }
    let total = Client::connect(address).ask("GET counter");
    assert_eq!(total, format!("$3\r\n{}\r\n", WRITERS * INCREMENTS));
}

#[test]
fn an_oversized_transaction_is_refused() {
    let door = open(&super::DoorOptions {
        bulk_bytes_max: 700_000,
        query_bytes_max: 1 << 20,
        ..options()
    });
    let mut client = Client::connect(door.address());
    client.ask("MULTI");
    let value = "x".repeat(300_000);
    for _ in 0..3 {
        assert_eq!(client.ask(&format!("SET a {value}")), "+QUEUED\r\n");
    }
    assert!(client.ask(&format!("SET a {value}")).contains("client-query-buffer-limit"));
    assert!(client.ask("EXEC").starts_with("-EXECABORT"));
    assert_eq!(client.ask("GET a"), "$-1\r\n");
}
