//! Accepts administrators, with limits on what they may cost.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use larder_core::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Access, router};
use crate::serve::Server;

/// How many connections are served at once. For one more, the oldest has to go.
const CONNECTIONS_MAX: usize = 64;

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one connection may stay open: scrapers come again.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);

/// The most bytes of a request's head; requests have no bodies.
const HEAD_BYTES_MAX: usize = 16 * 1024;

const HEADERS_MAX: usize = 64;

/// How long requests that run get when the server stops.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// The address of the administration, and what is served there.
pub struct Listener {
    address: SocketAddr,
    /// Taken when serving begins.
    start: Mutex<Option<(TcpListener, Access)>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Listener {
    /// Takes the address. Nobody is answered until [`Listener::serve`].
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it cannot be listened on.
    pub async fn bind(address: SocketAddr, access: Access) -> Result<Self> {
        let refuse = |error: std::io::Error| {
            Error::new(ErrorKind::Config, "the administration cannot listen on its address")
                .with("address", address)
                .caused_by(error)
                .remedy("stop what listens there, or choose another with --admin-bind")
        };
        let listener = TcpListener::bind(address).await.map_err(refuse)?;
        let address = listener.local_addr().map_err(refuse)?;
        Ok(Self {
            address,
            start: Mutex::new(Some((listener, access))),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Where it listens, with the port that was taken for port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to answer; does nothing the second time.
    pub fn serve(&self, server: Arc<Server>) {
        let Some((listener, access)) = self.start.lock().take() else { return };
        let service = router(server, access);
        let (stop, tasks) = (self.stop.clone(), self.tasks.clone());
        self.tasks.spawn(accept(listener, service, stop, tasks));
    }

    /// Accepts nobody any more and lets requests that run end, for a moment.
    pub async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        // Who is late is cut off with the process.
        let _ = tokio::time::timeout(CLOSE_PATIENCE, self.tasks.wait()).await;
    }
}

async fn accept(
    listener: TcpListener,
    service: axum::Router,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // What ends each connection, oldest first; cancelled where it has ended.
    let mut open: VecDeque<CancellationToken> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                open.retain(|connection| !connection.is_cancelled());
                if open.len() >= CONNECTIONS_MAX
                    && let Some(oldest) = open.pop_front()
                {
                    tracing::debug!("the oldest administrator makes room for another");
                    oldest.cancel();
                }
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                let end = CancellationToken::new();
                open.push_back(end.clone());
                let (service, stop) = (service.clone(), stop.clone());
                tasks.spawn(async move {
                    let _ended = end.clone().drop_guard();
                    // Cut off as it is: it may be waiting for a client that does not read.
                    end.run_until_cancelled(answer(stream, service, stop)).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: trying again at once would spin.
                tracing::warn!("the administration cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, service: axum::Router, stop: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let end = tokio::time::sleep(CONNECTION_LIFE);
    tokio::select! {
        // What goes wrong on a connection is its client's to notice.
        _ = connection.as_mut() => return,
        () = stop.cancelled() => {}
        () = end => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(CLOSE_PATIENCE, connection).await;
}
