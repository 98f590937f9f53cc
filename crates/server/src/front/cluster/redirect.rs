//! A server of the cluster says that a command is not for it: it is sent where it
//! belongs, and clients never learn of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::Front;
use super::super::nodes::Node;
use super::super::request::Request;
use super::slot::SLOTS;
use crate::resp::Protocol;
use crate::resp::worker::Worker;

/// So often a command is sent, all in all, before its client is told to try again
/// later.
pub(crate) const TRIES_MAX: u32 = 16;

/// The wait before a command is tried again whose keys are on both sides of a
/// move; it grows with each try.
pub(crate) const TRY_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Why a command did not run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Redirect {
    /// The slot has another owner, and whom it is.
    Moved(usize, Target),
    /// The slot is being moved, and the key is not here any more.
    Ask(Target),
    /// Its keys are on both sides of a move.
    TryAgain,
    /// Nobody serves the slot. The client is told, and the map is asked for.
    Down,
}

/// Where to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    /// Empty if it is the host of the server that says so.
    host: String,
    port: u16,
}

impl Redirect {
    /// Reads a reply that may be one.
    pub(crate) fn read(reply: &[u8]) -> Option<Self> {
        let error = std::str::from_utf8(reply.strip_prefix(b"-")?).ok()?.trim_end();
        let mut words = error.split(' ');
        match words.next()? {
            "MOVED" => {
                let slot = words.next()?.parse().ok().filter(|slot| *slot < SLOTS)?;
                Some(Self::Moved(slot, Target::read(words.next()?)?))
            }
            "ASK" => {
                let _slot = words.next()?;
                Some(Self::Ask(Target::read(words.next()?)?))
            }
            "TRYAGAIN" => Some(Self::TryAgain),
            "CLUSTERDOWN" => Some(Self::Down),
            _ => None,
        }
    }

    /// What a client is told that cannot be spared it.
    pub(crate) fn refusal(&self) -> Vec<u8> {
        match self {
            Self::Down => b"-CLUSTERDOWN The cluster is down\r\n".to_vec(),
            _ => b"-TRYAGAIN The slot of these keys is being moved: try again\r\n".to_vec(),
        }
    }
}

impl Target {
    /// Reads `host:port`; the host may be an address of IPv6, or missing.
    fn read(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_matches(['[', ']']);
        let host = if host == "?" { "" } else { host };
        Some(Self { host: host.to_owned(), port: port.parse().ok().filter(|port| *port > 0)? })
    }

    /// Finds the server, which may be new to us.
    fn node(&self, front: &Front, told_by: &Node) -> Option<Arc<Node>> {
        let host = if self.host.is_empty() {
            told_by.upstream.options().host.as_str()
        } else {
            &self.host
        };
        front.nodes.find_or_add(&told_by.upstream, host, self.port).ok()
    }
}

/// Takes in what a redirection says of the owners of slots; returns the server to
/// ask, if there is one.
pub(crate) fn learn(front: &Front, told_by: &Node, redirect: &Redirect) -> Option<Arc<Node>> {
    front.counters.redirections.fetch_add(1, Ordering::Relaxed);
    match redirect {
        Redirect::Moved(slot, target) => {
            front.cluster.refresh();
            let node = target.node(front, told_by)?;
            if front.memory.validity.assign(std::iter::once(*slot), node.place) {
                front.counters.moved_slots.fetch_add(1, Ordering::Relaxed);
            }
            Some(node)
        }
        Redirect::Ask(target) => target.node(front, told_by),
        Redirect::TryAgain | Redirect::Down => {
            front.cluster.refresh();
            None
        }
    }
}

/// Sends a command where it belongs. Replies if that cannot be.
pub(crate) fn follow(
    worker: &Arc<Worker>,
    from: &Arc<Node>,
    protocol: Protocol,
    mut request: Request,
    redirect: &Redirect,
) {
    let Some(front_worker) = &worker.front else { return };
    let node = learn(&front_worker.front, from, redirect);
    // What it finds elsewhere is not what the token was taken for.
    request.wanted = None;
    let tries = request.again.as_mut().map_or(TRIES_MAX, |again| {
        again.tries += 1;
        again.tries
    });
    if *redirect == Redirect::TryAgain
        && tries < TRIES_MAX
        && request.to.mailbox().is_newest(request.to.ticket())
    {
        request.to.mailbox().hold(request.to.ticket());
        tokio::spawn(try_later(Arc::clone(worker), Arc::clone(from), protocol, request));
        return;
    }
    let link = node
        .filter(|_| tries < TRIES_MAX)
        .and_then(|node| front_worker.link(worker, node.place, protocol));
    let Some(link) = link else { return refuse(worker, &request, &redirect.refusal()) };
    let is_asking = matches!(redirect, Redirect::Ask(_));
    if let Err((request, refusal)) = link.ask_again(request, is_asking) {
        refuse(worker, &request, &refusal);
    }
}

/// Nothing else of the client is under way: its order is kept.
async fn try_later(worker: Arc<Worker>, node: Arc<Node>, protocol: Protocol, request: Request) {
    let tries = request.again.as_ref().map_or(1, |again| again.tries);
    tokio::time::sleep(TRY_AGAIN_AFTER * tries).await;
    let link = worker.front.as_ref().and_then(|front| front.link(&worker, node.place, protocol));
    let refused = match link {
        Some(link) => link.ask_again(request, false).err(),
        None => Some((request, Redirect::TryAgain.refusal().into())),
    };
    if let Some((request, refusal)) = refused {
        refuse(&worker, &request, &refusal);
    }
}

fn refuse(worker: &Worker, request: &Request, refusal: &[u8]) {
    if let Some(front) = &worker.front {
        request.void.apply(&front.front.memory);
    }
    request.to.put(if request.is_wanted { refusal } else { b"" }, true);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(host: &str, port: u16) -> Target {
        Target { host: host.to_owned(), port }
    }

    #[test]
    fn redirections_are_read() {
        for (reply, expected) in [
            (
                "-MOVED 3999 10.0.0.1:6381\r\n",
                Some(Redirect::Moved(3999, target("10.0.0.1", 6381))),
            ),
            ("-MOVED 3999 ::1:6381\r\n", Some(Redirect::Moved(3999, target("::1", 6381)))),
            ("-MOVED 3999 :6381\r\n", Some(Redirect::Moved(3999, target("", 6381)))),
            ("-MOVED 3999 ?:6381\r\n", Some(Redirect::Moved(3999, target("", 6381)))),
            (
                "-ASK 3999 cache.example:6381\r\n",
                Some(Redirect::Ask(target("cache.example", 6381))),
            ),
            ("-TRYAGAIN Multiple keys\r\n", Some(Redirect::TryAgain)),
            ("-CLUSTERDOWN Hash slot not served\r\n", Some(Redirect::Down)),
            ("-MOVED 16384 10.0.0.1:6381\r\n", None),
            ("-MOVED 1 10.0.0.1:0\r\n", None),
            ("-MOVED 1\r\n", None),
            ("-ERR MOVED\r\n", None),
            ("+MOVED 1 a:1\r\n", None),
        ] {
            assert_eq!(Redirect::read(reply.as_bytes()), expected, "{reply}");
        }
    }

    proptest! {
        #[test]
        fn any_reply_is_one_or_not(reply in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Redirect::read(&reply);
            let _ = Redirect::read(&[b"-MOVED ", reply.as_slice()].concat());
        }
    }
}
