use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use larder_core::Result;
use tokio::sync::oneshot;

use crate::core::Core;
use crate::engine::{Engine, Fault, MEMTABLES_BYTES_MAX, MERGES_BYTES};

/// Whoever asks for everything to be rewritten.
pub(crate) type CompactRequest = oneshot::Sender<Result<()>>;

const EVERY: Duration = Duration::from_millis(50);
const EVERY_IDLE: Duration = Duration::from_millis(250);
/// Looks that find nothing to merge before none is made until something was
/// written.
const IDLE_LOOKS: u32 = 3;
/// Journals take this, now and then more: fjall begins a new one at 64 MB.
const JOURNALS_BYTES: u64 = 96 << 20;
/// What is not there yet when puts are refused: what is in memory, and what
/// merges are writing.
const RESERVE_BYTES: u64 = MEMTABLES_BYTES_MAX / 2 + MERGES_BYTES;
/// Above this part of the tables' share, in thousandths, eviction begins; it is
/// strongest at the second.
const PRESSURE_FROM: u64 = 700;
const PRESSURE_FULL: u64 = 900;
const PRESSURE_MAX: u64 = 500;
/// When it was full for so long although nothing is left to merge, everything is
/// rewritten.
const FULL_PATIENCE: Duration = Duration::from_secs(5);

/// The thread that keeps the directory within its budget.
pub(crate) fn run(core: &Core, requests: &Receiver<CompactRequest>) {
    let mut upkeep = Upkeep { core, full_since: None, looked_at: 0, idle_looks: 0 };
    loop {
        // While there is something to merge it goes on at once.
        let pause = match upkeep.idle_looks {
            0 => Duration::ZERO,
            IDLE_LOOKS.. => EVERY_IDLE,
            _ => EVERY,
        };
        match requests.recv_timeout(pause) {
            Ok(reply) => {
                let _ = reply.send(upkeep.compact());
            }
            Err(RecvTimeoutError::Timeout) => upkeep.look(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Bytes of the directory: tables and journals.
pub(crate) fn disk_bytes(core: &Core) -> u64 {
    let tables = core.engine.read().as_ref().map_or(0, Engine::table_bytes);
    tables + core.directory.journal_bytes()
}

/// Sets the pressure, and whether puts are refused.
pub(crate) fn weigh(core: &Core) {
    let budget = core.options.disk_bytes_max;
    let Some(tables) = core.engine.read().as_ref().map(Engine::table_bytes) else { return };
    let journals = core.directory.journal_bytes();
    core.reclaim.press(pressure(tables, budget - JOURNALS_BYTES - RESERVE_BYTES));
    let is_full = tables + journals + RESERVE_BYTES >= budget;
    core.is_full.store(is_full, Ordering::Relaxed);
}

struct Upkeep<'a> {
    core: &'a Core,
    full_since: Option<Instant>,
    /// Bytes of tables and journals at the last look.
    looked_at: u64,
    idle_looks: u32,
}

impl Upkeep<'_> {
    /// Merges what is due.
    fn look(&mut self) {
        weigh(self.core);
        self.full_since = match (self.core.is_full.load(Ordering::Relaxed), self.full_since) {
            (true, since) => since.or_else(|| Some(Instant::now())),
            (false, _) => None,
        };
        let bytes = disk_bytes(self.core);
        if bytes != self.looked_at {
            self.looked_at = bytes;
            self.idle_looks = 0;
        }
        let engine = self.core.engine.read();
        let Some(engine) = engine.as_ref() else { return };
        if engine.is_behind() {
            // Writes wait for a merge, whatever the sizes say: one that only moves
            // tables does not change them.
            self.idle_looks = self.idle_looks.min(1);
        }
        let done = if self.idle_looks < IDLE_LOOKS {
            self.idle_looks += 1;
            engine.merge().map(|merged| {
                if merged {
                    self.idle_looks = 0;
                }
            })
        } else if self.full_since.is_some_and(|since| since.elapsed() >= FULL_PATIENCE) {
            self.full_since = Some(Instant::now());
            engine.compact()
        } else {
            Ok(())
        };
        if let Err(fault @ Fault::Damaged(_)) = done {
            self.core.note_broken(&fault);
        }
    }

    fn compact(&self) -> Result<()> {
        let engine = self.core.engine.read();
        let engine = engine.as_ref().ok_or_else(|| self.core.closed())?;
        engine.compact().map_err(|fault| {
            if matches!(fault, Fault::Damaged(_)) {
                self.core.note_broken(&fault);
            }
            self.core.failed(&fault)
        })
    }
}

/// Which part of what compaction meets is to go, in thousandths.
fn pressure(tables: u64, share: u64) -> u32 {
    let filled = (u128::from(tables) * 1000 / u128::from(share.max(1))).min(1_000_000) as u64;
    let above = filled.saturating_sub(PRESSURE_FROM);
    let usual = (above * PRESSURE_MAX / (PRESSURE_FULL - PRESSURE_FROM)).min(PRESSURE_MAX);
    // Far above, as after the budget was made smaller: what brings it back.
    let excess = if filled > 1000 { 1000 - PRESSURE_FROM * 1000 / filled } else { 0 };
    usual.max(excess) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuller_the_more_goes() {
        let pressures: Vec<u32> =
            [0, 60, 70, 80, 85, 100, 120, 600].map(|tables| pressure(tables, 100)).to_vec();
        assert_eq!(pressures, [0, 0, 0, 250, 375, 500, 500, 884]);
        assert_eq!(pressure(u64::MAX, 1), 1000);
    }
}
