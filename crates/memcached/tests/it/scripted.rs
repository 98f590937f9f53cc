//! A server that answers as a script has it: for what a real one does not do.

use std::time::Duration;

use bytes::Bytes;
use larder_core::ErrorKind;
use larder_memcached::protocol::{Mode, Reply, Request, WireKey};
use larder_memcached::{Memcached, MemcachedOptions};
use larder_testkit::conformance::block_on;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What memcached 1.6 answers to an introduction, shortened to what matters.
const STATISTICS: &[u8] = b"STAT pid 7\r\nSTAT uptime 9\r\nSTAT time 1800000000\r\n\
    STAT version 1.6.18\r\nEND\r\n";
const SETTINGS: &[u8] = b"STAT item_size_max 1048576\r\nSTAT cas_enabled yes\r\nEND\r\n";

/// Serves connections: introduces itself, then answers whatever comes with
/// `answer`, in which `#` stands for the token of the request's first key, and
/// closes or stays silent.
async fn serve(listener: TcpListener, answer: Vec<u8>, closes: bool) {
    while let Ok((stream, _)) = listener.accept().await {
        let answer = answer.clone();
        tokio::spawn(async move {
            // The client may end the connection at any time.
            let _ = serve_one(stream, &answer, closes).await;
        });
    }
}

async fn serve_one(mut stream: TcpStream, answer: &[u8], closes: bool) -> std::io::Result<()> {
    let mut input = Vec::new();
    loop {
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        if input.ends_with(b"mn\r\n") || input.ends_with(b"\r\n") {
            let request = String::from_utf8_lossy(&input).into_owned();
            input.clear();
            if request.starts_with("mn") {
                stream.write_all(b"MN\r\n").await?;
            } else if request.starts_with("stats settings") {
                stream.write_all(SETTINGS).await?;
            } else if request.starts_with("stats") {
                stream.write_all(STATISTICS).await?;
            } else if request.contains("bGFyZGVyIGhlbGxvAA==") {
                stream.write_all(b"MN\r\n").await?;
            } else {
                let token = request.split(" O").nth(1).unwrap_or("0 ");
                let token: String = token.chars().take_while(char::is_ascii_digit).collect();
                let answer = String::from_utf8_lossy(answer).replace('#', &token);
                stream.write_all(answer.as_bytes()).await?;
                if closes {
                    return Ok(());
                }
            }
        }
    }
}

/// A client of such a server, which waits for answers this long.
async fn client(answer: &[u8], closes: bool, response_timeout: Duration) -> Memcached {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it listens").to_string();
    tokio::spawn(serve(listener, answer.to_vec(), closes));
    let mut options = MemcachedOptions::new([address.parse().expect("an address")]);
    options.response_timeout = response_timeout;
    options.connect_timeout = crate::support::PATIENCE;
    Memcached::connect(options).await.expect("it introduces itself")
}

fn get() -> (WireKey, Request) {
    let key = WireKey::new(b"k").expect("it is short");
    (key.clone(), Request::get(key).with_value().with_cas())
}

const ANSWER: &[u8] = b"VA 5 O# c12\r\nvalue\r\n";

#[test]
fn an_answer_that_is_cut_off_anywhere_is_an_error_and_never_a_value() {
    block_on(async {
        for cut in 0..=ANSWER.len() {
            let client = client(&ANSWER[..cut], true, crate::support::PATIENCE).await;
            let reply = client.call_many(&[get()]).await.remove(0);
            match reply {
                Ok(Reply::Value(value, _)) if cut == ANSWER.len() => assert_eq!(value, "value"),
                Err(error) if cut < ANSWER.len() => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "cut at {cut}: {error}");
                }
                reply => panic!("cut at {cut}: {reply:?}"),
            }
        }
    });
}

#[test]
fn an_answer_that_stops_anywhere_is_given_up_in_time() {
    block_on(async {
        for cut in 0..ANSWER.len() {
            let client = client(&ANSWER[..cut], false, Duration::from_millis(200)).await;
            let error = client.call_many(&[get()]).await.remove(0).expect_err("it stopped");
            assert_eq!(error.kind(), ErrorKind::Timeout, "cut at {cut}: {error}");
        }
    });
}

#[test]
fn answers_to_something_else_end_the_connection() {
    block_on(async {
        for answer in [
            &b"VA 5 O99999 c12\r\nvalue\r\n"[..],
            b"HD\r\n",
            b"MN\r\n",
            b"HELLO\r\n",
            b"VA 99999999 O#\r\n",
            b"VA 5 O#\r\nvalue!!",
            b"\0\0\0\0\0\0\n",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
        ] {
            let client = client(answer, false, crate::support::PATIENCE).await;
            let error = client.call_many(&[get()]).await.remove(0).expect_err("no answer to it");
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{}: {error}", answer.escape_ascii());
            assert!(error.remedy_text().is_some(), "{error}");
        }
    });
}

#[test]
fn an_error_of_the_server_is_told_and_the_connection_stays() {
    block_on(async {
        let answer = b"SERVER_ERROR out of memory storing object\r\n";
        let client = client(answer, false, crate::support::PATIENCE).await;
        for _ in 0..3 {
            let key = WireKey::new(b"k").expect("it is short");
            let set = Request::set(key.clone(), Bytes::from_static(b"v"), Mode::Set);
            let reply = client.call_many(&[(key, set)]).await.remove(0).expect("an answer");
            assert!(matches!(reply, Reply::Complaint(_)), "{reply:?}");
        }
        assert_eq!(client.servers()[0].failures_count, 0);
    });
}
