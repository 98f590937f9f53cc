//! The proxy does each fault, to whom it is told to, and undoes it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use larder_testkit::conformance::block_on;
use larder_testkit::proxy::{ConnectionId, Direction, FaultProxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Within which nothing happens that is not to happen.
const QUIET: Duration = Duration::from_millis(60);
/// Within which everything happens that is to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that sends back what it hears, and ends when its client does.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                // A connection that breaks has ended.
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

struct Client(TcpStream);

impl Client {
    async fn connect(proxy: &FaultProxy) -> Self {
        Self(TcpStream::connect(proxy.address()).await.expect("the proxy listens"))
    }

    async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.expect("the kernel takes it");
    }

    /// The next bytes, as many as `text` has.
    async fn hears(&mut self, text: &str) {
        let mut bytes = vec![0; text.len()];
        let read = timeout(PATIENCE, self.0.read_exact(&mut bytes)).await;
        read.expect("it arrives").expect("the connection is whole");
        assert_eq!(String::from_utf8_lossy(&bytes), text);
    }

    async fn hears_nothing(&mut self) {
        let mut byte = [0];
        let read = timeout(QUIET, self.0.read(&mut byte)).await;
        assert!(read.is_err(), "it heard something: {read:?}");
    }

    /// How the connection ends: an error, or everything that came before its end.
    async fn hears_the_end(&mut self) -> Result<String, ErrorKind> {
        let mut text = String::new();
        let end = timeout(PATIENCE, self.0.read_to_string(&mut text)).await.expect("it ends");
        end.map(|_| text).map_err(|error| error.kind())
    }

    async fn talks(&mut self) {
        self.say("ping").await;
        self.hears("ping").await;
    }
}

/// A proxy to an echo, and a client whose connection is led through.
async fn talking() -> (FaultProxy, Client) {
    let proxy = FaultProxy::start(echo().await);
    let mut client = Client::connect(&proxy).await;
    client.talks().await;
    (proxy, client)
}

#[test]
fn without_a_fault_it_passes_everything_and_counts() {
    block_on(async {
        let (proxy, mut client) = talking().await;
        let long = "x".repeat(3_000_000);
        let (mut read, mut write) = client.0.split();
        let mut heard = vec![0; long.len()];
        let (sent, received) =
            tokio::join!(write.write_all(long.as_bytes()), read.read_exact(&mut heard));
        sent.expect("it is sent");
        received.expect("it is heard");
        assert!(heard == long.as_bytes());
        let bytes = 4 + long.len() as u64;
        assert_eq!((proxy.accepted(), proxy.bytes(Direction::ToServer)), (1, bytes));
        assert_eq!(proxy.bytes(Direction::Both), 2 * bytes);
        let view = &proxy.connections()[0];
        assert_eq!((view.id, view.bytes_to_client), (ConnectionId(1), bytes));
        assert_eq!(Some(view.client), client.0.local_addr().ok());
        assert_eq!(proxy.find(view.seen_by_server.expect("it is led")), Some(view.id));
        client.0.shutdown().await.expect("it is open");
        assert_eq!(client.hears_the_end().await, Ok(String::new()), "ends are passed on");
        proxy.wait_until(|proxy| proxy.connections().is_empty()).await;
    });
}

#[test]
fn round_trips_are_counted() {
    block_on(async {
        let (proxy, mut client) = talking().await;
        for _ in 0..4 {
            client.talks().await;
        }
        assert_eq!((proxy.round_trips(), proxy.connections()[0].round_trips), (5, 5));
    });
}

#[test]
fn a_delay_delays_and_a_pipeline_pays_it_once() {
    block_on(async {
        let (proxy, mut client) = talking().await;
        let latency = Duration::from_millis(50);
        proxy.all().delay(Direction::Both, latency, Duration::ZERO);
        let start = Instant::now();
        client.talks().await;
        assert!(start.elapsed() >= 2 * latency, "{:?}", start.elapsed());
        // On a quiet machine; the best of many is what the proxy adds.
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            for _ in 0..20 {
                client.say("a").await;
                tokio::task::yield_now().await;
            }
            client.hears(&"a".repeat(20)).await;
            best = best.min(start.elapsed());
        }
        assert!((2 * latency..20 * latency).contains(&best), "{best:?}");
        proxy.lift();
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            client.talks().await;
            best = best.min(start.elapsed());
        }
        assert!(best < latency, "{best:?}");
    });
}

#[test]
fn jitter_keeps_order_within_a_connection() {
    block_on(async {
        let proxy = FaultProxy::start_with_seed(echo().await, 7);
        proxy.future().delay(Direction::Both, Duration::ZERO, Duration::from_millis(5));
        let mut client = Client::connect(&proxy).await;
        let words: Vec<String> = (0..200).map(|number| format!("{number},")).collect();
        for word in &words {
            client.say(word).await;
        }
        client.hears(&words.concat()).await;
    });
}

#[test]
fn a_limit_lets_so_many_bytes_pass_in_a_second() {
    block_on(async {
        let (proxy, mut client) = talking().await;
        proxy.all().limit(Direction::ToClient, 100_000);
        let start = Instant::now();
        let text = "x".repeat(30_000);
        client.say(&text).await;
        client.hears(&text).await;
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(280), "{took:?}");
        proxy.lift();
        client.talks().await;
    });
}

#[test]
fn a_stall_holds_one_direction_of_one_connection() {
    block_on(async {
        let (proxy, mut stalled) = talking().await;
        let mut other = Client::connect(&proxy).await;
        let first = proxy.connections()[0].id;
        proxy.connection(first).stall(Direction::ToClient);
        stalled.say("late").await;
        proxy.wait_until(|proxy| proxy.connections()[0].bytes_to_server == 8).await;
        stalled.hears_nothing().await;
        other.talks().await;
        proxy.connection(first).lift();
        stalled.hears("late").await;

        proxy.all().stall(Direction::ToServer);
        stalled.say("later").await;
        let mut newcomer = Client::connect(&proxy).await;
        newcomer.say("new").await;
        stalled.hears_nothing().await;
        newcomer.hears_nothing().await;
        assert_eq!(
            proxy.connections()[0].bytes_to_server,
            8,
            "it is the way there that is stalled"
        );
        proxy.lift();
        stalled.hears("later").await;
        newcomer.hears("new").await;
    });
}

#[test]
fn a_black_hole_swallows_one_direction_and_its_healing_resets() {
    block_on(async {
        let (proxy, mut client) = talking().await;
        let mut untouched = Client::connect(&proxy).await;
        untouched.talks().await;
        proxy.all().black_hole(Direction::ToClient);
        client.say("gone").await;
        proxy.wait_until(|proxy| proxy.connections()[0].bytes_to_server == 8).await;
        client.hears_nothing().await;
        proxy.lift();
        assert_eq!(client.hears_the_end().await, Err(ErrorKind::ConnectionReset));
        untouched.talks().await;
        Client::connect(&proxy).await.talks().await;
    });
}

#[test]
fn half_open_leaves_the_client_in_the_dark() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let proxy = FaultProxy::start(listener.local_addr().expect("it listens"));
        let mut client = Client::connect(&proxy).await;
        let (mut server, _) = listener.accept().await.expect("the proxy connects");
        proxy.all().half_open();
        let mut byte = [0];
        let heard = timeout(PATIENCE, server.read(&mut byte)).await.expect("it is told");
        assert_eq!(heard.expect("it is an orderly end"), 0);
        client.say("hello?").await;
        client.hears_nothing().await;
        proxy.lift();
        assert_eq!(client.hears_the_end().await, Err(ErrorKind::ConnectionReset));
    });
}

#[test]
fn truncation_cuts_after_so_many_bytes() {
    block_on(async {
        let (proxy, mut client) = talking().await;
        proxy.all().truncate(Direction::ToClient, 7);
        client.say("0123456789").await;
        assert_eq!(client.hears_the_end().await.as_deref(), Ok("0123456"));
        let mut next = Client::connect(&proxy).await;
        next.say("0123456789").await;
        assert_eq!(next.hears_the_end().await.as_deref(), Ok("0123456"), "those to come, too");
        proxy.lift();
        Client::connect(&proxy).await.talks().await;
    });
}

#[test]
fn connections_are_reset_or_closed() {
    block_on(async {
        let (proxy, mut client) = talking().await;
        let mut other = Client::connect(&proxy).await;
        other.talks().await;
        proxy.connection(proxy.connections()[0].id).reset();
        assert_eq!(client.hears_the_end().await, Err(ErrorKind::ConnectionReset));
        other.talks().await;
        proxy.all().close();
        assert_eq!(other.hears_the_end().await, Ok(String::new()));
        proxy.wait_until(|proxy| proxy.connections().is_empty()).await;
    });
}

#[test]
fn new_connections_are_refused_and_admitted_again() {
    block_on(async {
        let (proxy, mut client) = talking().await;
        for _ in 0..3 {
            proxy.refuse();
            let refused = TcpStream::connect(proxy.address()).await.expect_err("nobody listens");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            client.talks().await;
            proxy.admit();
            Client::connect(&proxy).await.talks().await;
        }
    });
}

#[test]
fn one_connection_waits_until_another_has_passed() {
    block_on(async {
        let (proxy, mut first) = talking().await;
        let mut second = Client::connect(&proxy).await;
        second.talks().await;
        let ids: Vec<ConnectionId> = proxy.connections().iter().map(|view| view.id).collect();
        proxy.connection(ids[0]).hold_behind(Direction::ToServer, ids[1], 6);
        first.say("first").await;
        first.hears_nothing().await;
        second.say("sec").await;
        second.hears("sec").await;
        first.hears_nothing().await;
        second.say("ond").await;
        first.hears("first").await;

        proxy.connection(ids[0]).hold_behind(Direction::ToServer, ids[1], 1_000);
        first.say("again").await;
        first.hears_nothing().await;
        drop(second);
        first.hears("again").await;
    });
}

#[test]
fn it_leads_elsewhere_and_says_when_nobody_is_there() {
    block_on(async {
        let (proxy, mut client) = talking().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let nobody = listener.local_addr().expect("it listens");
        drop(listener);
        proxy.lead_to(nobody);
        let end = match TcpStream::connect(proxy.address()).await {
            Ok(stream) => Client(stream).hears_the_end().await,
            // It can be told before it knows that it is connected.
            Err(error) => Err(error.kind()),
        };
        assert_eq!(end, Err(ErrorKind::ConnectionReset));
        client.talks().await;
        proxy.lead_to(echo().await);
        Client::connect(&proxy).await.talks().await;
    });
}

#[test]
fn a_dropped_proxy_breaks_its_connections() {
    block_on(async {
        let (proxy, mut client) = talking().await;
        let address = proxy.address();
        drop(proxy);
        assert_eq!(client.hears_the_end().await.unwrap_or_default(), "");
        TcpStream::connect(address).await.expect_err("nobody listens");
    });
}

#[test]
#[should_panic(expected = "loopback addresses only")]
fn other_addresses_are_refused() {
    drop(FaultProxy::start("192.0.2.1:6379".parse().expect("an address")));
}

/// Who hears nothing from a client does not hear that it is gone either, and
/// writes on.
#[test]
fn a_client_that_is_gone_unheard_takes_nobody_along() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let proxy = FaultProxy::start(listener.local_addr().expect("it listens"));
        let client = Client::connect(&proxy).await;
        let (mut server, _) = listener.accept().await.expect("it is led through");
        proxy.all().black_hole(Direction::ToServer);
        drop(client);
        // The first ones are taken by a socket that nobody reads any more.
        let gone = async {
            while server.write_all(b"news").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, gone).await.expect("the server is told");
        proxy.lift();
        let mut other = Client::connect(&proxy).await;
        let (mut server, _) = listener.accept().await.expect("it is led through");
        server.write_all(b"welcome").await.expect("it is written");
        other.hears("welcome").await;
    });
}
