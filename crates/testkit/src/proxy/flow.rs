use std::time::Duration;

use super::connection::ConnectionId;

/// Where bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
    /// Both.
    Both,
}

impl Direction {
    /// The single direction at a place: of a pair of flows, the first is the one
    /// to the server.
    pub(super) const fn at(place: usize) -> Self {
        if place == TO_SERVER { Self::ToServer } else { Self::ToClient }
    }

    pub(super) fn places(self) -> impl Iterator<Item = usize> {
        let places = match self {
            Self::ToServer => TO_SERVER..TO_SERVER + 1,
            Self::ToClient => TO_CLIENT..TO_CLIENT + 1,
            Self::Both => TO_SERVER..TO_CLIENT + 1,
        };
        places.into_iter()
    }
}

pub(super) const TO_SERVER: usize = 0;
pub(super) const TO_CLIENT: usize = 1;

/// What happens to the bytes of one direction of a connection.
#[derive(Clone, Default, Debug)]
pub(super) struct Flow {
    pub(super) latency: Duration,
    pub(super) jitter: Duration,
    pub(super) bytes_per_second: Option<u32>,
    pub(super) is_stalled: bool,
    pub(super) is_black_hole: bool,
    /// The connection closes when this many bytes have passed, counted from its
    /// beginning.
    pub(super) cut_at: Option<u64>,
    /// Bytes wait until another connection has passed this many, counted from its
    /// beginning.
    pub(super) behind: Option<(ConnectionId, u64)>,
}

impl Flow {
    /// Whether anything gets through, an attempt to connect included.
    pub(super) const fn lets_pass(&self) -> bool {
        !self.is_stalled && !self.is_black_hole
    }
}
