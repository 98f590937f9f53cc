use std::sync::Arc;
use std::sync::mpsc::Receiver;

use larder_core::{Result, StoredEntry};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::core::Core;
use crate::engine::{Engine, Fault};
use crate::layout;
use crate::record::{self, Head};
use crate::state::CacheState;

/// Keys to read, and who waits for them.
pub(crate) struct Request {
    pub(crate) cache: Arc<CacheState>,
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) reply: oneshot::Sender<Result<Vec<Option<StoredEntry>>>>,
    /// The place in the queue, given back when it is read.
    pub(crate) _place: OwnedSemaphorePermit,
}

/// One of the threads that read. One of them waits for the next request, the
/// others for their turn to wait.
pub(crate) fn run(core: &Core, requests: &Mutex<Receiver<Request>>) {
    loop {
        let next = requests.lock().recv();
        let Ok(request) = next else { return };
        // Nobody waits any more for what was dropped.
        if !request.reply.is_closed() {
            let answer = read(core, &request);
            let _ = request.reply.send(answer);
        }
    }
}

fn read(core: &Core, request: &Request) -> Result<Vec<Option<StoredEntry>>> {
    let engine = core.engine.read();
    let engine = engine.as_ref().ok_or_else(|| core.closed())?;
    request.keys.iter().map(|key| read_one(core, engine, &request.cache, key)).collect()
}

/// What is damaged is a miss.
fn read_one(
    core: &Core,
    engine: &Engine,
    cache: &Arc<CacheState>,
    key: &[u8],
) -> Result<Option<StoredEntry>> {
    let record = match engine.get(key) {
        Ok(None) => return Ok(None),
        Ok(Some(record)) => record,
        Err(Fault::Damaged(_)) => {
            core.note_damaged(cache, key);
            return Ok(None);
        }
        Err(refused) => return Err(core.failed(&refused)),
    };
    let Some(head) = Head::read(&record).filter(|_| record::is_sound(key, &record)) else {
        core.note_damaged(cache, key);
        return Ok(None);
    };
    let now = core.now();
    if head.is_dead(now, core.limits) {
        return Ok(None);
    }
    if let Some(hash) = layout::entry_hash(key) {
        core.recency.touch(hash);
    }
    // A later format, perhaps: a miss, and not ours to drop.
    Ok(record::decode(&record, now).unwrap_or_default())
}
