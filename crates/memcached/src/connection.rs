//! One connection: many callers, answers in order, one task that reads and
//! writes.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use larder_core::{Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::pending::{Answers, Pending};
use crate::protocol::{Limits, Parser, Request};
use crate::{ServerAddress, failure};

/// Batches that wait to be sent before whoever comes next has to wait, too.
const QUEUE_LENGTH: usize = 1024;
/// Batches are sent together up to about this size.
const WRITE_BYTES: usize = 64 << 10;
const READ_BYTES: usize = 16 << 10;

/// What a connection has to know.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) server: ServerAddress,
    pub(crate) response_timeout: Duration,
    /// The longest value that the server may send.
    pub(crate) value_bytes_max: Arc<AtomicUsize>,
}

/// How a connection ended.
pub(crate) enum End {
    /// Nobody waited for anything.
    Idle,
    /// Somebody did.
    Failed,
}

/// The callers' side of a connection. Dropping it closes the connection once
/// everything asked has been answered.
pub(crate) struct Connection {
    batches: mpsc::Sender<Batch>,
    next_opaque: AtomicU32,
    /// Why the connection ended.
    cause: Arc<OnceLock<Error>>,
    server: ServerAddress,
}

struct Batch {
    bytes: Vec<u8>,
    pending: Pending,
    answer: oneshot::Sender<Answers>,
}

/// A batch of which the answers are awaited.
struct InFlight {
    pending: Pending,
    answer: oneshot::Sender<Answers>,
    /// When its last byte was written.
    written_at: Arc<OnceLock<Instant>>,
}

impl Connection {
    /// Runs the connection in a task of its own, which tells at its end how that
    /// came.
    pub(crate) fn open<S>(stream: S, setup: Setup, ended: impl FnOnce(End) + Send + 'static) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (batches, queue) = mpsc::channel(QUEUE_LENGTH);
        let cause = Arc::new(OnceLock::new());
        let server = setup.server.clone();
        tokio::spawn({
            let cause = Arc::clone(&cause);
            async move {
                let end = match run(stream, queue, &setup, &cause).await {
                    Ok(()) => End::Idle,
                    Err(error) => {
                        tracing::debug!(server = %setup.server, %error, "connection lost");
                        End::Failed
                    }
                };
                ended(end);
            }
        });
        Self { batches, next_opaque: AtomicU32::new(0), cause, server }
    }

    /// Whether nothing can be asked any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.batches.is_closed()
    }

    /// Sends the requests in one piece and waits for all answers.
    ///
    /// # Errors
    /// If the connection ends first. What was asked may have been done.
    ///
    /// # Cancel safety
    /// What was not sent yet when the future is dropped is not sent; what was
    /// may be done.
    pub(crate) async fn call(&self, requests: &[Request]) -> Result<Answers> {
        if requests.is_empty() {
            return Ok(Answers::default());
        }
        let count = u32::try_from(requests.len()).unwrap_or(u32::MAX);
        let first_opaque = self.next_opaque.fetch_add(count, Ordering::Relaxed);
        let pending = Pending::new(requests, first_opaque);
        let mut bytes = Vec::with_capacity(requests.len() * 64);
        for (index, request) in requests.iter().enumerate() {
            let opaque = first_opaque.wrapping_add(index as u32);
            request.encode(opaque, pending.is_quiet(index), &mut bytes)?;
        }
        if pending.ends_with_noop() {
            Request::noop().encode(0, false, &mut bytes)?;
        }
        let (answer, mut answered) = oneshot::channel();
        let batch = Batch { bytes, pending, answer };
        self.batches.send(batch).await.map_err(|_| self.cause())?;
        // A batch that is sent while the connection ends may stay in the channel,
        // and its end with it: so the channel's own end counts, too.
        tokio::select! {
            biased;
            answers = &mut answered => answers.map_err(|_| self.cause()),
            () = self.batches.closed() => answered.try_recv().map_err(|_| self.cause()),
        }
    }

    fn cause(&self) -> Error {
        self.cause.get().cloned().unwrap_or_else(|| failure::closed(&self.server))
    }
}

/// Serves the queue until nobody can ask any more, or the server closes the
/// connection while nobody waits.
async fn run<S: AsyncRead + AsyncWrite>(
    stream: S,
    queue: mpsc::Receiver<Batch>,
    setup: &Setup,
    cause: &OnceLock<Error>,
) -> Result<()> {
    let (reader, writer) = tokio::io::split(stream);
    let (sent, in_flight) = mpsc::unbounded_channel();
    // Both ends in one task: what ends one ends the other, and what they hold.
    tokio::select! {
        result = read(reader, in_flight, setup, cause) => result,
        Err(error) = write(writer, queue, sent, setup, cause) => Err(error),
    }
}

/// Notes why the connection ends, before the callers' channels close: they look
/// here then.
fn note(cause: &OnceLock<Error>) -> impl Fn(Error) -> Error {
    move |error| {
        let _ = cause.set(error.clone());
        error
    }
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Batch>,
    sent: mpsc::UnboundedSender<InFlight>,
    setup: &Setup,
    cause: &OnceLock<Error>,
) -> Result<()> {
    let mut out = Vec::with_capacity(READ_BYTES);
    while let Some(first) = queue.recv().await {
        let written_at = Arc::new(OnceLock::new());
        let mut next = Some(first);
        while let Some(batch) = next.take() {
            // Whoever asked may have left by now.
            if !batch.answer.is_closed() {
                out.extend_from_slice(&batch.bytes);
                let written_at = Arc::clone(&written_at);
                let (pending, answer) = (batch.pending, batch.answer);
                // Fails only when the reader has ended, which ends this, too.
                let _ = sent.send(InFlight { pending, answer, written_at });
            }
            if out.len() < WRITE_BYTES {
                next = queue.try_recv().ok();
            }
        }
        write_all(&mut writer, &out, setup).await.map_err(note(cause))?;
        let _ = written_at.set(Instant::now());
        out.clear();
        out.shrink_to(WRITE_BYTES);
    }
    Ok(())
}

/// Writes everything; each piece has the time of one answer.
async fn write_all(
    writer: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    setup: &Setup,
) -> Result<()> {
    let lost = |error| failure::lost(&setup.server, error);
    let stalled = |_| failure::too_slow(&setup.server, "memcached takes nothing more", LIMIT);
    while !bytes.is_empty() {
        let written = timeout(setup.response_timeout, writer.write(bytes)).await;
        let count = written.map_err(stalled)?.map_err(lost)?;
        if count == 0 {
            return Err(failure::closed(&setup.server));
        }
        bytes = &bytes[count..];
    }
    timeout(setup.response_timeout, writer.flush()).await.map_err(stalled)?.map_err(lost)
}

const LIMIT: &str = "response_timeout";

async fn read(
    mut reader: impl AsyncRead + Unpin,
    mut in_flight: mpsc::UnboundedReceiver<InFlight>,
    setup: &Setup,
    cause: &OnceLock<Error>,
) -> Result<()> {
    let mut input = BytesMut::with_capacity(READ_BYTES);
    loop {
        let next = tokio::select! {
            // In this order: what is answered was noted before it was sent.
            biased;
            next = in_flight.recv() => next,
            count = reader.read_buf(&mut input) => {
                return match count {
                    // An idle connection may end in any way.
                    Ok(0) | Err(_) => Ok(()),
                    Ok(_) => Err(note(cause)(failure::garbled(
                        &setup.server,
                        "it was not asked anything",
                    ))),
                };
            }
        };
        let Some(mut batch) = next else { return Ok(()) };
        read_answers(&mut reader, &mut input, &mut batch, setup).await.map_err(note(cause))?;
        if !input.is_empty() && in_flight.is_empty() {
            let error = failure::garbled(&setup.server, "it answers more than was asked");
            return Err(note(cause)(error));
        }
        // Whoever asked may have left.
        let _ = batch.answer.send(batch.pending.into_answers());
    }
}

/// Reads until a batch is answered. Each answer has its time.
async fn read_answers(
    reader: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
    batch: &mut InFlight,
    setup: &Setup,
) -> Result<()> {
    let garbled = |error| failure::garbled(&setup.server, error);
    let mut parser = Parser::default();
    let mut since = Instant::now();
    loop {
        let value_bytes_max = setup.value_bytes_max.load(Ordering::Relaxed);
        let limits = Limits { value_bytes_max, ..Limits::default() };
        while let Some(reply) =
            parser.parse(input, limits).map_err(|error| garbled(error.to_string()))?
        {
            since = Instant::now();
            let is_complete = batch
                .pending
                .accept(reply)
                .map_err(|_| garbled("it is the answer to something else".to_owned()))?;
            if is_complete {
                return Ok(());
            }
        }
        input.reserve(parser.expected_bytes().saturating_sub(input.len()).max(READ_BYTES / 4));
        match timeout_at(since + setup.response_timeout, reader.read_buf(input)).await {
            Ok(Ok(0)) => return Err(failure::closed(&setup.server)),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(failure::lost(&setup.server, error)),
            // While it is still being written, the writer watches over the time.
            Err(_) => match batch.written_at.get() {
                Some(written_at) if *written_at <= since => {
                    return Err(failure::too_slow(
                        &setup.server,
                        "memcached did not answer in time",
                        LIMIT,
                    ));
                }
                Some(written_at) => since = *written_at,
                None => since = Instant::now(),
            },
        }
    }
}
