use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::flow::{Flow, TO_CLIENT, TO_SERVER};
use super::pump::{self, discard};
use super::state::{End, Shared};

/// How long what is still sent to a connection that closes is read: unread bytes
/// would turn its end into a reset.
const LINGER: Duration = Duration::from_millis(100);

/// Names a connection through a proxy: 1 is the first that it accepted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// A connection through a proxy at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionView {
    /// Which one.
    pub id: ConnectionId,
    /// The client's end.
    pub client: SocketAddr,
    /// The proxy's end towards the server; `None` while there is none.
    pub seen_by_server: Option<SocketAddr>,
    /// How many bytes have passed to the server.
    pub bytes_to_server: u64,
    /// How many bytes have passed to the client.
    pub bytes_to_client: u64,
    /// As [`super::FaultProxy::round_trips`].
    pub round_trips: u64,
}

/// What is known of a connection.
#[derive(Debug)]
pub(super) struct Held {
    client: SocketAddr,
    seen_by_server: Option<SocketAddr>,
    pub(super) flows: [Flow; 2],
    pub(super) passed: [u64; 2],
    /// Where bytes went last.
    pub(super) last_place: Option<usize>,
    pub(super) round_trips: u64,
    /// Whether a black hole took something of it.
    pub(super) has_lost: bool,
    pub(super) end: Option<End>,
}

impl Held {
    pub(super) const fn new(client: SocketAddr, flows: [Flow; 2]) -> Self {
        Self {
            client,
            seen_by_server: None,
            flows,
            passed: [0; 2],
            last_place: None,
            round_trips: 0,
            has_lost: false,
            end: None,
        }
    }

    pub(super) const fn view(&self, id: ConnectionId) -> ConnectionView {
        ConnectionView {
            id,
            client: self.client,
            seen_by_server: self.seen_by_server,
            bytes_to_server: self.passed[TO_SERVER],
            bytes_to_client: self.passed[TO_CLIENT],
            round_trips: self.round_trips,
        }
    }
}

/// Carries bytes between a client and the server until one side or a fault ends
/// it.
pub(super) async fn carry(shared: Arc<Shared>, id: ConnectionId, client: TcpStream) {
    let ended = tokio::select! {
        upstream = connect(&shared, id) => match upstream {
            Some(upstream) => exchange(&shared, id, client, upstream).await,
            None => client.set_zero_linger(),
        },
        end = end_of(&shared, id, None) => match end {
            End::Reset => client.set_zero_linger(),
            End::Close => Ok(()),
            End::HalfOpen => stay_half_open(&shared, id, client).await,
        },
    };
    // A socket that cannot be set up any more is broken as it should be.
    drop(ended);
    shared.forget(id);
}

/// Connects to the server as soon as no fault stands in the way; `None` if the
/// server does not take it.
async fn connect(shared: &Shared, id: ConnectionId) -> Option<TcpStream> {
    let mut changes = shared.changes();
    let is_led = || {
        let state = shared.state();
        let held = state.connections.get(&id);
        held.is_none_or(|held| held.flows.iter().all(Flow::lets_pass))
    };
    while !is_led() {
        changes.changed().await.ok()?;
    }
    let upstream = shared.state().upstream;
    let stream = TcpStream::connect(upstream).await.ok()?;
    let address = stream.local_addr().ok()?;
    if let Some(held) = shared.state().connections.get_mut(&id) {
        held.seen_by_server = Some(address);
    }
    Some(stream)
}

async fn exchange(
    shared: &Shared,
    id: ConnectionId,
    client: TcpStream,
    upstream: TcpStream,
) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let both = async {
        tokio::join!(
            pump::run(shared, id, TO_SERVER, &client, &upstream),
            pump::run(shared, id, TO_CLIENT, &upstream, &client),
        )
    };
    let end = tokio::select! {
        biased;
        end = end_of(shared, id, None) => end,
        _ = both => return Ok(()),
    };
    match end {
        End::Reset => {
            client.set_zero_linger()?;
            upstream.set_zero_linger()
        }
        End::Close => {
            pump::shut_down(&client);
            pump::shut_down(&upstream);
            let both = async { tokio::join!(discard(&client), discard(&upstream)) };
            // It ends in any case.
            let _ = tokio::time::timeout(LINGER, both).await;
            Ok(())
        }
        End::HalfOpen => {
            drop(upstream);
            stay_half_open(shared, id, client).await
        }
    }
}

async fn stay_half_open(
    shared: &Shared,
    id: ConnectionId,
    client: TcpStream,
) -> std::io::Result<()> {
    tokio::select! {
        () = discard(&client) => Ok(()),
        _ = end_of(shared, id, Some(End::HalfOpen)) => client.set_zero_linger(),
    }
}

/// Waits until a connection is to end, in another way than in this one.
async fn end_of(shared: &Shared, id: ConnectionId, but: Option<End>) -> End {
    let mut changes = shared.changes();
    loop {
        let end = shared.state().connections.get(&id).and_then(|held| held.end);
        if let Some(end) = end.filter(|end| Some(*end) != but) {
            return end;
        }
        if changes.changed().await.is_err() {
            return End::Reset;
        }
    }
}
