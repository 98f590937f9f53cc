//! The connection on which Redis tells which keys have changed (`CLIENT
//! TRACKING` in broadcasting mode), and its pulse.
//!
//! Redis writes an invalidation before it answers whoever made the change, and
//! answers on a connection come in order: once it answers a `PING`, every
//! invalidation of what was done before the `PING` has arrived. So each answer
//! proves that memory holds up to the moment the question was asked.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use larder_core::{Error, ErrorKind, Moment};

use super::Front;
use super::backoff::Backoff;
use super::cluster::pulse::{self, Verdict};
use super::frame::{self, Scanned, Scanner};
use super::nodes::Node;
use super::statistics::TrackingState;
use super::wire::{Wire, encode};
use crate::resp::Protocol;

/// The clock that readers look at is behind by up to a tick of the kernel.
const CLOCK_LAG: Duration = Duration::from_millis(10);

/// A connection that does not answer for so many staleness bounds is given up.
const PATIENCE: u32 = 5;

/// Where tracking is refused, it is tried again after so long: rights change.
const RETRY_REFUSED: Duration = Duration::from_secs(30);

/// A connection that was lost sooner is not opened again at once.
const STEADY: Duration = Duration::from_secs(1);

/// A push with more unread than this is not one that Redis sends.
const PUSH_BYTES_MAX: usize = 1 << 30;

/// Tracks a server until it retires.
pub(super) async fn run(front: &Front, node: &Arc<Node>) {
    tokio::select! {
        biased;
        () = node.retired.cancelled() => {}
        () = keep(front, node) => {}
    }
    front.memory.suspend(node.place);
    front.nodes.remove(node);
}

/// Tracks for ever.
async fn keep(front: &Front, node: &Node) {
    let mut backoff = Backoff::default();
    loop {
        let error = match open(front, node).await {
            Ok(wire) => {
                let opened_at = front.now();
                let error = follow(front, node, wire).await;
                front.memory.suspend(node.place);
                node.set_tracking(TrackingState::Lost);
                front.counters.losses.fetch_add(1, Ordering::Relaxed);
                front.note_lost(&error);
                tracing::warn!(
                    "nothing is answered from memory until Redis tells again what changes"
                );
                if front.now().since(opened_at) >= STEADY {
                    backoff = Backoff::default();
                } else {
                    tokio::time::sleep(backoff.next()).await;
                }
                continue;
            }
            Err(Refusal::Tracking(error)) => {
                fall_back(front, node, &error);
                tokio::time::sleep(RETRY_REFUSED).await;
                continue;
            }
            Err(Refusal::Connection(error)) => error,
        };
        front.memory.suspend(node.place);
        node.set_tracking(TrackingState::Lost);
        tracing::debug!(%error, "tracking has no connection");
        tokio::time::sleep(backoff.next()).await;
    }
}

enum Refusal {
    Connection(Error),
    Tracking(Error),
}

/// Opens the connection and switches tracking on.
async fn open(front: &Front, node: &Node) -> std::result::Result<Wire, Refusal> {
    let mut wire = match front.connect(node, Protocol::Resp3).await {
        Ok(wire) => wire,
        Err(error) => return Err(refusal_of(front, node, error).await),
    };
    let tracking: [&[u8]; 4] = [b"CLIENT", b"TRACKING", b"ON", b"BCAST"];
    match node.upstream.ask_in_time(&mut wire, "CLIENT TRACKING", &tracking).await {
        Ok(_) => Ok(wire),
        Err(error) => {
            front.note_closed();
            Err(match error.kind() {
                ErrorKind::Unsupported => Refusal::Tracking(error),
                _ => Refusal::Connection(error),
            })
        }
    }
}

/// Whether Redis is there, but does not speak the protocol that tracking needs.
async fn refusal_of(front: &Front, node: &Node, error: Error) -> Refusal {
    if error.kind() != ErrorKind::Unsupported {
        return Refusal::Connection(error);
    }
    match front.connect(node, Protocol::Resp2).await {
        Ok(_) => {
            front.note_closed();
            Refusal::Tracking(error)
        }
        Err(error) => Refusal::Connection(error),
    }
}

/// Keeps values for a moment, or not at all, and says so.
fn fall_back(front: &Front, node: &Node, error: &Error) {
    if node.tracking() == TrackingState::Refused {
        return;
    }
    front.memory.suspend(node.place);
    node.set_tracking(TrackingState::Refused);
    let ttl = front.options.untracked_ttl;
    if ttl.is_zero() {
        tracing::warn!("Redis does not tell what changes, so nothing is kept in memory: {error}");
        return;
    }
    tracing::warn!(
        "Redis does not tell what changes, so values are kept for {ttl:?} and may be that old: \
         {error}"
    );
    front.memory.validity.hold_for(node.place, ttl);
}

/// Takes invalidations in until the connection is lost; returns why.
async fn follow(front: &Front, node: &Node, mut wire: Wire) -> Error {
    front.memory.suspend(node.place);
    let mut pulse = Pulse { asked: None, is_wanted: true, outgoing: Vec::new() };
    let mut feed = Feed::default();
    let mut beat = tokio::time::interval(front.options.heartbeat());
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pulse.ask(front);
        let io = std::future::poll_fn(|cx| {
            use std::task::Poll;
            while !pulse.outgoing.is_empty() {
                match wire.poll_write(cx, &pulse.outgoing) {
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
                    }
                    Poll::Ready(Ok(count)) => drop(pulse.outgoing.drain(..count)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
            }
            if let Poll::Ready(Err(error)) = wire.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            wire.poll_read(cx, &mut feed.incoming)
        });
        tokio::select! {
            biased;
            read = io => match read {
                Err(error) => return node.upstream.unavailable(&error),
                Ok(_) => match feed.take(front, node) {
                    Ok(None) => {}
                    Ok(Some(answer)) => pulse.answered(front, node, &answer),
                    Err(why) => return node.upstream.unavailable(&why),
                },
            },
            () = node.pulse.notified() => pulse.is_wanted = true,
            _ = beat.tick() => {
                let limit = front.options.staleness_max * PATIENCE;
                if pulse.asked.is_some_and(|asked| front.now().since(asked) > limit) {
                    return node.upstream.unavailable(&format_args!("no answer within {limit:?}"));
                }
                pulse.is_wanted = true;
            }
        }
    }
}

/// One question at a time: when it was asked, and whether another is wanted.
struct Pulse {
    asked: Option<Moment>,
    is_wanted: bool,
    outgoing: Vec<u8>,
}

impl Pulse {
    fn ask(&mut self, front: &Front) {
        if self.is_wanted && self.asked.is_none() {
            self.is_wanted = false;
            self.asked = Some(front.now());
            let question: &[&[u8]] =
                if front.options.is_cluster() { &pulse::QUESTION } else { &[b"PING"] };
            encode(question, &mut self.outgoing);
        }
    }

    fn answered(&mut self, front: &Front, node: &Node, answer: &[u8]) {
        let Some(asked) = self.asked.take() else { return };
        if front.options.is_cluster()
            && pulse::verdict(answer, front.cluster.epoch()) == Verdict::Doubtful
        {
            // Whether the slots are still its own shows when all is known anew.
            front.cluster.refresh();
            return;
        }
        let until = asked + front.options.staleness_max.saturating_sub(CLOCK_LAG);
        front.memory.validity.prolong(node.place, asked, until);
        if node.tracking() != TrackingState::Tracking {
            node.set_tracking(TrackingState::Tracking);
            tracing::info!(address = node.upstream.label(), "Redis tells what changes");
        }
    }
}

/// What comes on the connection.
#[derive(Default)]
struct Feed {
    incoming: Vec<u8>,
    scanned: usize,
    scanner: Scanner,
}

impl Feed {
    /// Applies every invalidation that has arrived; returns the answer to the
    /// question that was asked, if it has.
    fn take(
        &mut self,
        front: &Front,
        node: &Node,
    ) -> std::result::Result<Option<Vec<u8>>, &'static str> {
        let (mut start, mut answer) = (0, None);
        loop {
            match self.scanner.scan(&self.incoming[self.scanned..]) {
                Err(_) => return Err("it does not speak RESP"),
                Ok(Scanned::Part(count)) => {
                    self.scanned += count;
                    break;
                }
                Ok(Scanned::Whole(count)) => {
                    self.scanned += count;
                    let message = &self.incoming[start..self.scanned];
                    start = self.scanned;
                    match self.scanner.head() {
                        b'>' => apply(front, node, message)?,
                        b'-' => {
                            return Err("it answers with an error when asked for a sign of life");
                        }
                        _ => answer = Some(message.to_vec()),
                    }
                }
            }
        }
        self.incoming.drain(..start);
        self.scanned -= start;
        if self.incoming.len() > PUSH_BYTES_MAX {
            return Err("it sends a message without an end");
        }
        if self.incoming.is_empty() {
            self.incoming.shrink_to(1 << 20);
        }
        Ok(answer)
    }
}

/// Forgets what an invalidation names. Other messages are not for us.
fn apply(front: &Front, node: &Node, message: &[u8]) -> std::result::Result<(), &'static str> {
    const UNREADABLE: &str = "it sends an invalidation that cannot be read";
    let (_, rest) = frame::array(message).ok_or(UNREADABLE)?;
    let (name, rest) = frame::string(rest).ok_or(UNREADABLE)?;
    if name != Some(b"invalidate") {
        return Ok(());
    }
    let Some((count, mut rest)) = frame::array(rest) else {
        // Instead of keys, nothing: all of them.
        front.memory.clear_node(node.place);
        front.counters.flushes.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    };
    for _ in 0..count {
        let (key, behind) = frame::string(rest).ok_or(UNREADABLE)?;
        front.memory.void(key.ok_or(UNREADABLE)?);
        rest = behind;
    }
    front.counters.invalidations.fetch_add(count as u64, Ordering::Relaxed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use larder_core::Clock;

    use super::super::options::{FrontOptions, UpstreamOptions};
    use super::*;
    use crate::keyspace::{Keyspace, KeyspaceOptions};

    fn front() -> Front {
        let upstream = UpstreamOptions::parse("redis://127.0.0.1:1").expect("a URL");
        let keyspace = Arc::new(Keyspace::new(KeyspaceOptions::default()));
        let front = Front::new(&FrontOptions::new(upstream), keyspace, Clock::monotonic());
        front.expect("nothing is connected yet")
    }

    fn node(front: &Front) -> Arc<Node> {
        front.nodes.get(0).expect("there is one")
    }

    fn keep_key(front: &Front, key: &[u8]) {
        let now = front.now();
        front.memory.validity.prolong(0, now, now + Duration::from_secs(60));
        let token = front.memory.token(key, now).expect("it holds");
        front.memory.fill(key, Some(b"1"), token, front.memory.wall_time(), None);
        assert!(front.look(key).is_some());
    }

    #[test]
    fn invalidations_void_keys_however_they_are_cut() {
        let stream = b">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$2\r\nb\n\r\n+PONG\r\n";
        for cut in 0..stream.len() {
            let front = front();
            for key in [&b"a"[..], b"b\n", b"c"] {
                keep_key(&front, key);
            }
            let mut feed = Feed::default();
            let mut answers = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                feed.incoming.extend_from_slice(part);
                answers.extend(feed.take(&front, &node(&front)).expect("it is RESP"));
            }
            assert_eq!(answers, [b"+PONG\r\n"]);
            assert!(front.look(b"a").is_none() && front.look(b"b\n").is_none());
            assert!(front.look(b"c").is_some());
        }
    }

    #[test]
    fn a_flush_voids_everything_and_other_messages_nothing() {
        for (message, is_left) in [
            (&b">2\r\n$10\r\ninvalidate\r\n_\r\n"[..], false),
            (b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\na\r\n", true),
        ] {
            let front = front();
            keep_key(&front, b"a");
            let mut feed = Feed { incoming: message.to_vec(), ..Feed::default() };
            assert_eq!(feed.take(&front, &node(&front)), Ok(None));
            assert_eq!(front.look(b"a").is_some(), is_left);
        }
    }

    #[test]
    fn what_is_unreadable_ends_the_connection() {
        for message in [&b">2\r\n$10\r\ninvalidate\r\n*1\r\n:1\r\n"[..], b"-ERR\r\n", b"x\r\n"] {
            let mut feed = Feed { incoming: message.to_vec(), ..Feed::default() };
            let front = front();
            assert!(feed.take(&front, &node(&front)).is_err());
        }
    }
}
