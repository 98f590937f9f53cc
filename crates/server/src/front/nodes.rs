//! The servers behind this one: a single Redis, or those of a cluster that own
//! slots or may come to own some.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use larder_core::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::statistics::TrackingState;
use super::validity::NODES_MAX;
use super::wire::Upstream;

/// One server. Its place is its number in [`super::validity::Validity`].
pub(crate) struct Node {
    pub(crate) place: usize,
    pub(crate) upstream: Arc<Upstream>,
    /// Cancelled once no slot is its own any more, and none may become.
    pub(crate) retired: CancellationToken,
    /// Somebody waits for the next answer on its tracking connection.
    pub(crate) pulse: Notify,
    /// Whether the last attempt to reach it succeeded.
    pub(crate) is_reachable: AtomicBool,
    tracking: AtomicU8,
    is_tracked: AtomicBool,
}

impl Node {
    fn new(place: usize, upstream: Upstream) -> Arc<Self> {
        Arc::new(Self {
            place,
            upstream: Arc::new(upstream),
            retired: CancellationToken::new(),
            pulse: Notify::new(),
            is_reachable: AtomicBool::new(false),
            tracking: AtomicU8::new(0),
            is_tracked: AtomicBool::new(false),
        })
    }

    pub(crate) fn is_at(&self, host: &str, port: u16) -> bool {
        let options = self.upstream.options();
        options.port == port && options.host == host
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.is_cancelled()
    }

    pub(crate) fn set_tracking(&self, state: TrackingState) {
        self.tracking.store(state as u8, Ordering::Relaxed);
    }

    pub(crate) fn tracking(&self) -> TrackingState {
        TrackingState::from_number(self.tracking.load(Ordering::Relaxed))
    }

    /// Whether nobody tracks it yet; whoever is told so has to.
    pub(crate) fn begin_tracking(&self) -> bool {
        !self.is_tracked.swap(true, Ordering::AcqRel)
    }
}

/// All of them, by their places.
pub(crate) struct Nodes {
    places: Mutex<Places>,
}

struct Places {
    nodes: Vec<Option<Arc<Node>>>,
    /// From where on places were never taken. A cursor of `SCAN` names a place, so
    /// one is used again only when there is no other.
    fresh: usize,
}

impl Nodes {
    /// The first one, which owns everything at first.
    pub(crate) fn new(first: Upstream) -> Self {
        let nodes = vec![Some(Node::new(0, first))];
        Self { places: Mutex::new(Places { nodes, fresh: 1 }) }
    }

    pub(crate) fn get(&self, place: usize) -> Option<Arc<Node>> {
        self.places.lock().nodes.get(place)?.clone()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Node>> {
        self.places.lock().nodes.iter().flatten().cloned().collect()
    }

    /// The server at this address, which may be new.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the host is no name for TLS,
    /// [`ErrorKind::Unsupported`] if there are too many.
    pub(crate) fn find_or_add(&self, like: &Upstream, host: &str, port: u16) -> Result<Arc<Node>> {
        let mut places = self.places.lock();
        let known = places.nodes.iter().flatten();
        if let Some(node) =
            known.into_iter().find(|node| node.is_at(host, port) && !node.is_retired())
        {
            return Ok(Arc::clone(node));
        }
        let upstream = like.beside(host, port)?;
        let place = places.take().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "the cluster has too many servers")
                .with("limit", NODES_MAX)
                .remedy("put a Larder in front of each part of it")
        })?;
        let node = Node::new(place, upstream);
        places.nodes[place] = Some(Arc::clone(&node));
        Ok(node)
    }

    /// Forgets a server that has retired.
    pub(crate) fn remove(&self, node: &Arc<Node>) {
        let mut places = self.places.lock();
        if let Some(held) = places.nodes.get_mut(node.place)
            && held.as_ref().is_some_and(|held| Arc::ptr_eq(held, node))
        {
            *held = None;
        }
    }
}

impl Places {
    fn take(&mut self) -> Option<usize> {
        if self.fresh < NODES_MAX {
            self.fresh += 1;
            self.nodes.push(None);
            return Some(self.fresh - 1);
        }
        self.nodes.iter().position(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::UpstreamOptions;
    use super::*;

    fn upstream() -> Upstream {
        let options = UpstreamOptions::parse("redis://10.0.0.1:7000").expect("a URL");
        Upstream::new(options).expect("it can be used")
    }

    #[test]
    fn servers_keep_their_places() {
        let nodes = Nodes::new(upstream());
        let like = upstream();
        let second = nodes.find_or_add(&like, "10.0.0.2", 7000).expect("there is room");
        assert_eq!(second.place, 1);
        let again = nodes.find_or_add(&like, "10.0.0.2", 7000).expect("there is room");
        assert!(Arc::ptr_eq(&second, &again));
        assert_eq!(nodes.find_or_add(&like, "10.0.0.1", 7000).expect("it is there").place, 0);
        second.retired.cancel();
        let reborn = nodes.find_or_add(&like, "10.0.0.2", 7000).expect("there is room");
        assert_eq!(reborn.place, 2, "what was said of the old one does not count");
        nodes.remove(&second);
        assert!(nodes.get(1).is_none() && nodes.get(2).is_some());
    }

    #[test]
    fn places_are_used_again_when_there_is_no_other() {
        let nodes = Nodes::new(upstream());
        let like = upstream();
        for port in 1..NODES_MAX as u16 {
            nodes.find_or_add(&like, "10.0.0.2", port).expect("there is room");
        }
        let refused = nodes.find_or_add(&like, "10.0.0.3", 1).err().expect("it is full");
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        let old = nodes.get(17).expect("it is there");
        nodes.remove(&old);
        assert_eq!(nodes.find_or_add(&like, "10.0.0.3", 1).expect("there is room").place, 17);
    }
}
