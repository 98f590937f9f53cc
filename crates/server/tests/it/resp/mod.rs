//! The RESP door, driven over real sockets.

mod against_redis;
mod caches;
mod closing;
mod front;
mod hostile;
mod sessions;
mod stream;
mod threads;
mod transactions;
mod writes;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_server::keyspace::{Keyspace, KeyspaceOptions};
use larder_server::resp::{Door, DoorOptions, NoCaches, Routes};

/// How long any reply may take.
const REPLY_WAIT: Duration = Duration::from_secs(30);

/// The options of a door on a free port.
fn options() -> DoorOptions {
    DoorOptions {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        threads: 2,
        is_adaptive: false,
        dangerous_commands: ["keys", "flushall", "flushdb"].map(str::to_owned).to_vec(),
        ..DoorOptions::default()
    }
}

/// A door without caches.
fn open(options: &DoorOptions) -> Door {
    open_with(options, Arc::new(NoCaches))
}

fn open_with(options: &DoorOptions, routes: Arc<dyn Routes>) -> Door {
    let keyspace = Arc::new(Keyspace::new(KeyspaceOptions::default()));
    Door::open(options, keyspace, routes).expect("a free port can be listened on")
}

/// A client that sees the bytes of each reply.
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server accepts");
        stream.set_read_timeout(Some(REPLY_WAIT)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        Self { stream, received: Vec::new() }
    }

    /// Sends bytes as they are.
    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Sends a command as an array of strings.
    fn send_command<T: AsRef<[u8]>>(&mut self, arguments: &[T]) {
        self.send(&encode(arguments));
    }

    /// Sends a command and waits for the bytes of its reply.
    fn call<T: AsRef<[u8]>>(&mut self, arguments: &[T]) -> Vec<u8> {
        self.send_command(arguments);
        self.reply()
    }

    /// Like [`Client::call`], with the arguments separated by spaces and the
    /// reply as text.
    fn ask(&mut self, line: &str) -> String {
        let arguments: Vec<&str> = line.split(' ').collect();
        text(&self.call(&arguments))
    }

    /// The bytes of the next reply.
    fn reply(&mut self) -> Vec<u8> {
        loop {
            if let Some(length) = reply_length(&self.received) {
                return self.received.drain(..length).collect();
            }
            let mut chunk = [0; 64 * 1024];
            let count = self.stream.read(&mut chunk).expect("a reply comes in time");
            let so_far = self.received.escape_ascii();
            assert_ne!(count, 0, "the server hung up after {so_far}");
            self.received.extend_from_slice(&chunk[..count]);
        }
    }

    /// Everything that comes until the server hangs up.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.received);
        // A server that closes while input is unread resets the connection.
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }

    /// Tells the server that nothing more will come.
    fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the socket is open");
    }
}

/// A command as an array of strings.
fn encode<T: AsRef<[u8]>>(arguments: &[T]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        let argument = argument.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How many bytes the first reply takes, if it is complete.
fn reply_length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let number = || {
        let digits = std::str::from_utf8(&bytes[1..end - 2]).expect("a length is text");
        digits.parse::<i64>().expect("a length is a number")
    };
    match bytes[0] {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => Some(end),
        b'$' | b'=' | b'!' => match number() {
            -1 => Some(end),
            length => Some(end + length as usize + 2).filter(|&total| total <= bytes.len()),
        },
        b'*' | b'~' | b'>' => elements_length(bytes, end, number().max(0)),
        b'%' => elements_length(bytes, end, number() * 2),
        // What is said about a reply comes before it.
        b'|' => elements_length(bytes, end, number() * 2 + 1),
        other => panic!("{:?} starts no reply", char::from(other)),
    }
}

fn elements_length(bytes: &[u8], mut end: usize, count: i64) -> Option<usize> {
    for _ in 0..count {
        end += reply_length(&bytes[end..])?;
    }
    Some(end)
}

/// Waits until something holds.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + REPLY_WAIT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}
