//! What only calls itself Redis, or is of another time: its answers are made up
//! here.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use larder_server::front::{FrontOptions, TrackingState, UpstreamOptions, check};
use larder_server::resp::NoCaches;

use super::{Client, SHORT, counted, open_front, wait_for};

/// Answers whatever arrives at once with what `answer` makes of it.
fn imitate(answer: fn(&str) -> &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let serve = move |mut stream: TcpStream| {
        let mut input = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut input) {
            let reply = answer(&String::from_utf8_lossy(&input[..count]));
            if stream.write_all(reply.as_bytes()).is_err() {
                break;
            }
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn upstream(login: &str, address: SocketAddr) -> UpstreamOptions {
    UpstreamOptions::parse(&format!("redis://{login}{address}")).expect("a URL")
}

/// Where much is written, invalidations come together with the word that
/// tracking is on, and the first of them is cut anywhere.
#[test]
fn invalidations_may_follow_at_once() {
    let address = imitate(|asked| {
        if asked.contains("TRACKING") {
            "+OK\r\n>2\r\n$10\r\ninvalidate\r\n*2\r\n$20\r\nkey:0000000000000001\r\n$20\r\n\
             key:0000000000000002\r\n"
        } else if asked.contains("PING") {
            "+PONG\r\n"
        } else {
            "%1\r\n+proto\r\n:3\r\n"
        }
    });
    let door = open_front(upstream("", address), Arc::new(NoCaches), |_| {});
    wait_for(&door, TrackingState::Tracking);
    assert_eq!((counted(&door).losses, counted(&door).invalidations), (0, 2));
}

/// Redis 5 repeats the arguments of commands that it does not know.
#[test]
fn a_refusal_that_repeats_the_password_is_not_passed_on() {
    let address = imitate(|asked| {
        if asked.contains("HELLO") {
            "-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `ann`, \
             `hunter2`, \r\n"
        } else {
            "+OK\r\n"
        }
    });
    let door = open_front(upstream("ann:hunter2@", address), Arc::new(NoCaches), |_| {});
    let mut client = Client::connect(door.address());
    client.ask("HELLO 3");
    let refusal = client.ask("HGET h f");
    assert!(refusal.starts_with("-UNAVAILABLE") && refusal.contains("unknown"), "{refusal}");
    assert!(!refusal.contains("hunter2"), "{refusal}");
}

#[test]
fn silence_at_the_start_is_told() {
    let address = imitate(|_| "");
    let mut options = FrontOptions::new(upstream("", address));
    options.upstream.reply_timeout = SHORT;
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let checked = runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(10), check(&options)).await });
    let error = checked.expect("it does not wait for ever").expect_err("nobody answers");
    assert!(error.to_string().contains("no reply within"), "{error}");
}
