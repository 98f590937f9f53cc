use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::connection::ConnectionId;
use super::flow::Flow;
use super::state::{End, Shared};

/// How much of one direction is on its way at most; then the sender waits.
const QUEUE_BYTES_MAX: usize = 4 << 20;
const READ_BYTES: usize = 64 << 10;

/// In how many steps a second's worth of bytes passes under a limit.
const STEPS_PER_SECOND: u32 = 100;

/// Carries the bytes of one direction until its sender has ended and everything
/// has arrived.
pub(super) async fn run(
    shared: &Shared,
    id: ConnectionId,
    place: usize,
    source: &TcpStream,
    sink: &TcpStream,
) {
    let mut pump = Pump::new(shared, id, place);
    let (mut changes, mut passes) = (shared.changes(), shared.observe());
    loop {
        changes.mark_unchanged();
        passes.mark_unchanged();
        let Some(step) = pump.plan() else {
            // Whoever carries the connection ends it, as it is to end.
            return std::future::pending().await;
        };
        if step.is_done {
            shut_down(sink);
            return;
        }
        tokio::select! {
            biased;
            _ = changes.changed() => {}
            _ = passes.changed(), if step.waits_for_another => {}
            _ = source.readable(), if step.reads => pump.read(source),
            _ = sink.writable(), if step.writes_bytes > 0 => pump.write(sink, step.writes_bytes),
            () = tokio::time::sleep_until(step.due), if step.waits_until_due => {}
        }
    }
}

/// Tells a peer that nothing follows.
pub(super) fn shut_down(stream: &TcpStream) {
    // A peer that is gone need not be told.
    let _ = SockRef::from(stream).shutdown(std::net::Shutdown::Write);
}

/// Reads until the other side ends or breaks the connection.
pub(super) async fn discard(stream: &TcpStream) {
    let mut buffer = vec![0; READ_BYTES];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut buffer) {
            Ok(1..) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
        }
    }
}

/// One direction of a connection.
struct Pump<'a> {
    shared: &'a Shared,
    id: ConnectionId,
    place: usize,
    random: fastrand::Rng,
    buffer: Vec<u8>,
    /// What is on its way, with the moment at which it arrives.
    queue: VecDeque<(Instant, Bytes)>,
    queue_bytes: usize,
    /// When the last of the queue arrives: nothing overtakes it.
    last_due: Instant,
    /// When the limit lets the next bytes pass.
    next_write_at: Instant,
    /// Whether the sender has ended.
    is_at_end: bool,
}

/// What a pump waits for next.
struct Step {
    reads: bool,
    /// How many bytes of the front of the queue may pass now.
    writes_bytes: usize,
    due: Instant,
    waits_until_due: bool,
    waits_for_another: bool,
    is_done: bool,
}

impl<'a> Pump<'a> {
    fn new(shared: &'a Shared, id: ConnectionId, place: usize) -> Self {
        let now = Instant::now();
        Self {
            shared,
            id,
            place,
            random: shared.random(id, place),
            buffer: vec![0; READ_BYTES],
            queue: VecDeque::new(),
            queue_bytes: 0,
            last_due: now,
            next_write_at: now,
            is_at_end: false,
        }
    }

    /// What the faults allow now; `None` if the connection is ending.
    fn plan(&mut self) -> Option<Step> {
        let (flow, room, is_held) = self.faults()?;
        if flow.is_black_hole && !self.queue.is_empty() {
            self.queue.clear();
            self.queue_bytes = 0;
            self.lose();
        }
        if room == 0 {
            self.shared.end(self.id, End::Close);
        }
        let flows = !flow.is_stalled && !is_held;
        let now = Instant::now();
        let due = self.queue.front().map(|(due, _)| (*due).max(self.next_write_at));
        let is_due = due.is_some_and(|due| due <= now);
        let length = self.queue.front().map_or(0, |(_, bytes)| bytes.len());
        let step = flow.bytes_per_second.map_or(u32::MAX, |rate| (rate / STEPS_PER_SECOND).max(1));
        let may_pass = length.min(step as usize).min(room);
        let has_room = self.queue_bytes < QUEUE_BYTES_MAX;
        Some(Step {
            reads: !self.is_at_end && (flow.is_black_hole || (!flow.is_stalled && has_room)),
            writes_bytes: if flows && is_due { may_pass } else { 0 },
            due: due.unwrap_or(now),
            waits_until_due: flows && !is_due && due.is_some(),
            waits_for_another: is_held,
            is_done: self.is_at_end && flows && !flow.is_black_hole && self.queue.is_empty(),
        })
    }

    /// The faults, how many more bytes may pass, and whether another connection is
    /// to pass first.
    fn faults(&self) -> Option<(Flow, usize, bool)> {
        self.shared.state().faults(self.id, self.place)
    }

    fn read(&mut self, source: &TcpStream) {
        let Some((flow, _, _)) = self.faults() else { return };
        match source.try_read(&mut self.buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(length) if length > 0 && !flow.is_black_hole => {
                let jitter = flow.jitter.mul_f64(self.random.f64());
                let due = (Instant::now() + flow.latency + jitter).max(self.last_due);
                self.last_due = due;
                self.queue.push_back((due, Bytes::copy_from_slice(&self.buffer[..length])));
                self.queue_bytes += length;
            }
            // What a black hole takes includes the news that the sender is gone.
            result if flow.is_black_hole => {
                self.is_at_end = !matches!(result, Ok(1..));
                self.lose();
            }
            Ok(_) => self.is_at_end = true,
            Err(_) => self.shared.end(self.id, End::Reset),
        }
    }

    fn write(&mut self, sink: &TcpStream, bytes_max: usize) {
        let Some((_, front)) = self.queue.front_mut() else { return };
        // Under the lock, so that what was counted has passed and the other way
        // round, and that no byte passes after a fault was set.
        let mut state = self.shared.state();
        let Some((flow, room, is_held)) = state.faults(self.id, self.place) else { return };
        if is_held || !flow.lets_pass() {
            return;
        }
        match sink.try_write(&front[..bytes_max.min(room).min(front.len())]) {
            Ok(length) => {
                state.pass(self.id, self.place, length as u64);
                drop(state);
                front.advance(length);
                if front.is_empty() {
                    self.queue.pop_front();
                }
                self.queue_bytes -= length;
                if let Some(rate) = flow.bytes_per_second {
                    let pause = Duration::from_secs_f64(length as f64 / f64::from(rate));
                    self.next_write_at = self.next_write_at.max(Instant::now()) + pause;
                }
                self.shared.tell();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => {
                drop(state);
                self.shared.end(self.id, End::Reset);
            }
        }
    }

    fn lose(&self) {
        if let Some(held) = self.shared.state().connections.get_mut(&self.id) {
            held.has_lost = true;
        }
    }
}
