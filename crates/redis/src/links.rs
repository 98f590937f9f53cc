//! Few connections that many callers share: what is asked at the same time goes
//! over the wire together.

use larder_core::{Error, Result};
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};

use crate::RedisOptions;
use crate::address::Endpoint;
use crate::circle::{Circle, Role};
use crate::cluster_link::ClusterLink;
use crate::discovery::Discovery;
use crate::failure::{failed, is_other_epoch};
use crate::script::Call;

/// Where commands go.
pub(crate) enum Links {
    /// To one primary, and to replicas for reading if there are links to them.
    Single { writers: Circle, readers: Option<Circle> },
    /// To the node that has the slot.
    Cluster(Box<ClusterLink>),
}
/// Why there is no answer.
pub(crate) enum Trouble {
    /// The server, or the way to it.
    Driver(RedisError, String),
    /// No connection could be opened.
    Closed(Error),
}

impl Trouble {
    fn error(self) -> Error {
        match self {
            Self::Driver(error, server) => failed(&error, &server),
            Self::Closed(error) => error,
        }
    }
}

/// A failure, and whether scripts may make something of it.
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// The script knows another epoch.
    pub(crate) is_other_epoch: bool,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl Links {
    /// Opens nothing yet: the first command does.
    pub(crate) fn new(options: &RedisOptions, discovery: &Discovery) -> Self {
        if options.topology == crate::Topology::Cluster {
            return Self::Cluster(Box::new(ClusterLink::new(options, discovery)));
        }
        let commands = options.connections_max - 2;
        let readers = if options.read_from_replicas { commands / 2 } else { 0 };
        Self::Single {
            writers: Circle::new(discovery, Role::Primary, (commands - readers).max(1)),
            readers: (readers > 0).then(|| Circle::new(discovery, Role::Replica, readers)),
        }
    }

    /// Opens what is needed for a first command.
    ///
    /// # Errors
    /// If no server can be used, why.
    pub(crate) async fn open(&self) -> Result<()> {
        match self {
            Self::Single { writers, .. } => writers.open().await,
            Self::Cluster(link) => link.open().await,
        }
    }

    /// Whether keys of one command must share a slot.
    pub(crate) fn has_slots(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Sends a command to the primary of this key and returns the answer. One
    /// round trip.
    ///
    /// # Errors
    /// As [`failed`] says; also for an error that the server answered.
    pub(crate) async fn ask(&self, command: &Cmd, key: &[u8]) -> Result<Value> {
        self.send(command, key, false).await.map_err(|trouble| trouble.error())
    }

    /// The same, from a replica if entries are read from there.
    ///
    /// # Errors
    /// As [`Links::ask`].
    pub(crate) async fn read(&self, command: &Cmd, key: &[u8]) -> Result<Value> {
        self.send(command, key, true).await.map_err(|trouble| trouble.error())
    }

    /// Calls a script where its first key lies. One round trip; two the first
    /// time on a server.
    ///
    /// # Errors
    /// As [`Links::ask`].
    pub(crate) async fn call(&self, call: &Call) -> Result<Value, Failure> {
        let key = call.keys.first().map_or(&[][..], Vec::as_slice);
        let mut answer = self.send(&call.by_digest(), key, false).await;
        if let Err(Trouble::Driver(error, _)) = &answer
            && error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
        {
            answer = self.send(&call.in_full(), key, false).await;
        }
        answer.map_err(|trouble| {
            let is_other_epoch =
                matches!(&trouble, Trouble::Driver(error, _) if is_other_epoch(error));
            Failure { is_other_epoch, error: trouble.error() }
        })
    }

    /// Closes connections for writing that lead elsewhere: another server is the
    /// primary now.
    pub(crate) fn keep_only(&self, primary: &Endpoint) {
        if let Self::Single { writers, .. } = self {
            writers.keep_only(primary);
        }
    }

    async fn send(&self, command: &Cmd, key: &[u8], reads: bool) -> Result<Value, Trouble> {
        match self {
            Self::Single { writers, readers } => {
                let circle = readers.as_ref().filter(|_| reads).unwrap_or(writers);
                circle.send(command).await
            }
            Self::Cluster(link) => link.send(command, key, reads).await,
        }
    }
}
