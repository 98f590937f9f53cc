//! The journal of writes on their way to an origin, shared by many processes: one
//! stream a lane.

mod appender;
mod core;
mod entry;
mod keys;
mod known;
mod link;
mod options;
mod sharing;

use std::fmt;
use std::sync::Arc;

use larder_core::{
    DeadLetter, Death, Error, ErrorKind, Journal, JournalEntry, JournalOffset, JournalProfile,
    JournalRecord, JournalSharing, JournalUsage, LaneClaim, Result,
};
use redis::Value;
use tokio::sync::{mpsc, oneshot};

pub use options::{Acknowledge, RedisJournalOptions};

use self::core::{Core, RECORD_OVERHEAD, Said};
use crate::RedisTier;
use crate::connector::text;
use crate::script::{
    Call, JOURNAL_BURY, JOURNAL_CLAIM, JOURNAL_DROP, JOURNAL_LETTERS, JOURNAL_OPEN, JOURNAL_REPLAY,
    JOURNAL_TRIM,
};
use crate::state::number;
use appender::{Appender, Order, full, unknown};
use entry::{cause_number, encode, foreign, read_entry, read_letter};
use keys::JournalKeys;
use link::{Link, Silence};
use sharing::NewsLink;

/// A journal in Redis or Valkey that many processes share. Clones are the same
/// process to the others.
///
/// All keys of a journal share a slot of a cluster. Each change is one script, so
/// that it happens as a whole. A connection of its own appends: whatever comes
/// while one call is on its way is the next call, and a call whose answer was lost
/// is made again and happens once.
///
/// **What is told of losses.** The journal notes which server wrote last. Another
/// one, or the same after a restart, goes on far above all places and epochs, so
/// that nothing new is taken for something old; every process compares what it saw
/// with what is there, logs what is missing and counts it in
/// [`RedisJournalStatistics::lost`]. If Redis comes back empty, a process that
/// lives makes the journal anew under its name; if one that has just started is
/// first, it is another journal, and those that knew the old one refuse to go on.
#[derive(Clone)]
pub struct RedisJournal(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    orders: mpsc::Sender<Order>,
    news: NewsLink,
}

/// What became of a journal since it was opened here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RedisJournalStatistics {
    /// Acknowledged records of which Redis has nothing any more, as far as this
    /// process had heard of them. Those that the owner of their lane has in memory
    /// are applied nevertheless.
    pub lost: u64,
    /// How often another server had the journal, or the same one was restarted.
    pub histories_ended: u64,
}

/// How many entries one script trims, so that others need not wait for it.
const TRIMMED_TOGETHER: usize = 1000;
/// About how many bytes of entries one answer has, if it has more than one.
const READ_BYTES: u64 = 4 << 20;
const READ_TOGETHER: u64 = 1000;

impl RedisJournal {
    /// Opens a journal over the servers of this tier, or makes it, with connections
    /// of its own: one to append, one for all else, and one that waits for news.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the options are no good, the journal has another
    /// number of lanes, or the server cannot acknowledge as was asked for; those of
    /// the connection.
    pub async fn open(tier: &RedisTier, options: RedisJournalOptions) -> Result<Self> {
        options.validate()?;
        let shared = Arc::clone(&tier.0);
        let keys = JournalKeys::new(shared.names.journal(&options.name));
        let timeout = shared.options.response_timeout;
        let link_for = |timeout| Link::new(shared.discovery.for_slot(keys.slot(), timeout));
        let news = NewsLink::new(shared.discovery.for_slot(keys.slot(), timeout + NewsLink::BLOCK));
        let link = link_for(timeout);
        let appends = link_for(timeout + options.acknowledge_timeout);
        let wanted = format!("{}-{:016x}", options.name, fastrand::u64(..));
        let call = Call::new(&JOURNAL_OPEN, vec![keys.head(), keys.news()])
            .argument(wanted)
            .number(options.lanes);
        let asked = shared.time.now();
        let answer = link.call(&call).await?;
        let opened = Opened::read(&answer).ok_or_else(foreign)?;
        shared.time.learn(asked, opened.micros, shared.time.now());
        if opened.lanes != options.lanes {
            return Err(Error::new(ErrorKind::Config, "the journal has another number of lanes")
                .with("lanes", opened.lanes)
                .with("configured", options.lanes)
                .remedy("configure as many as it has, or take a new name"));
        }
        check_acknowledge(&link, options.acknowledge).await?;
        let profile = JournalProfile {
            name: Arc::from(opened.name),
            lanes: options.lanes,
            survives: options.acknowledge.survives(),
            shared: true,
            record_bytes_max: options.record_bytes_max,
        };
        let core = Arc::new(Core::new(shared, link, keys, options, profile));
        core.hear(answer)?;
        let (orders, taken) = mpsc::channel(ORDERS_WAITING_MAX);
        tokio::spawn(Appender::new(Arc::clone(&core), appends, taken).run());
        Ok(Self(Arc::new(Inner { core, orders, news })))
    }

    /// Leaves: gives up every claim of this process at once. What is appended
    /// later is appended nevertheless. One round trip.
    ///
    /// # Errors
    /// Those of the connection: then the claims end by themselves.
    pub async fn close(&self) -> Result<()> {
        self.0.give_up_all().await
    }

    /// What became of it.
    #[must_use]
    pub fn statistics(&self) -> RedisJournalStatistics {
        let known = self.0.core.known();
        RedisJournalStatistics { lost: known.lost, histories_ended: known.histories_ended }
    }

    fn core(&self) -> &Arc<Core> {
        &self.0.core
    }

    /// A script about one lane, by its owner.
    fn owned(
        &self,
        script: &'static crate::script::Script,
        lane: u16,
        epoch: u64,
        keys: Vec<Vec<u8>>,
    ) -> Result<Call> {
        let core = self.core();
        core.check_lane(lane)?;
        let keys = std::iter::once(core.keys.news()).chain(keys).collect();
        Ok(core.script(script, keys).number(lane).number(epoch))
    }

    /// How many records are read at once.
    fn piece(&self, most: usize) -> usize {
        let known = self.core().known();
        let average = known.bytes / (known.records + known.dead_letters).max(1) as u64;
        let piece = (READ_BYTES / average.max(1)).clamp(1, READ_TOGETHER);
        most.min(usize::try_from(piece).unwrap_or(1))
    }
}

impl Journal for RedisJournal {
    fn profile(&self) -> JournalProfile {
        self.core().profile.clone()
    }

    fn usage(&self) -> JournalUsage {
        let core = self.core();
        core.known().usage(core.options.bytes_max)
    }

    fn sharing(&self) -> Option<&dyn JournalSharing> {
        Some(&*self.0)
    }

    async fn claim(&self, lane: u16) -> Result<LaneClaim> {
        let core = self.core();
        core.check_lane(lane)?;
        let call = core
            .script(&JOURNAL_CLAIM, vec![core.keys.news()])
            .argument(core.node.as_bytes())
            .number(lane)
            .number(core.options.lease.as_micros());
        let rest = match core.call(&call).await? {
            Said::Done(rest) => rest,
            Said::Held(left) => {
                return Err(Error::new(ErrorKind::Conflict, "another process owns the lane")
                    .with("lane", lane)
                    .with("for at most", format_args!("{left:?}"))
                    .remedy("wait until it gives the lane up, or its lease ends"));
            }
            _ => return Err(foreign()),
        };
        let [epoch, trimmed, last] = numbers(&rest)?;
        if let Some(known) = core.known().lane(lane) {
            known.epoch = known.epoch.max(epoch);
            known.trimmed = known.trimmed.max(trimmed);
            known.highest = known.highest.max(last);
        }
        Ok(LaneClaim { epoch, trimmed: JournalOffset(trimmed), last: JournalOffset(last) })
    }

    async fn append(&self, lane: u16, records: &[JournalRecord]) -> Result<JournalOffset> {
        let core = self.core();
        core.check_lane(lane)?;
        if records.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, "there is nothing to append"));
        }
        let most = core.options.record_bytes_max;
        let records: Vec<Vec<u8>> =
            records.iter().map(|record| encode(record, most)).collect::<Result<_>>()?;
        let bytes: usize = records.iter().map(Vec::len).sum();
        if records.len() > APPENDED_RECORDS_MAX || bytes > APPENDED_BYTES_MAX.max(most) {
            return Err(Error::new(ErrorKind::InvalidInput, "too much to append at once")
                .with("records", records.len())
                .with("bytes", bytes)
                .remedy("append less at a time"));
        }
        let (reply, answer) = oneshot::channel();
        let order = Order { lane, records, reply };
        self.0.orders.send(order).await.map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(unknown(ended())))
    }

    async fn read(
        &self,
        lane: u16,
        after: JournalOffset,
        most: usize,
    ) -> Result<Vec<JournalEntry>> {
        let core = self.core();
        core.check_lane(lane)?;
        let mut entries: Vec<JournalEntry> = Vec::new();
        let mut after = after.0;
        while entries.len() < most && after < OFFSET_MAX {
            let piece = self.piece(most - entries.len());
            let key = core.keys.stream(lane);
            let mut command = redis::cmd("XRANGE");
            command.arg(&key).arg(after + 1).arg("+").arg("COUNT").arg(piece);
            let Value::Array(found) = core.link.ask(&command).await? else {
                return Err(foreign());
            };
            for entry in &found {
                let entry = read_entry(entry, |accepted| core.age(accepted))
                    .map_err(|error| error.with("lane", lane))?;
                after = entry.offset.0;
                entries.push(entry);
            }
            if found.len() < piece {
                break;
            }
        }
        if let Some(last) = entries.last() {
            core.known().saw(lane, last.offset.0);
        }
        core.shared.keep_time();
        Ok(entries)
    }

    async fn trim(&self, lane: u16, epoch: u64, applied: JournalOffset) -> Result<()> {
        let core = self.core();
        let keys = || vec![core.keys.stream(lane), core.keys.buried(lane)];
        loop {
            let call = self
                .owned(&JOURNAL_TRIM, lane, epoch, keys())?
                .number(applied.0.min(OFFSET_MAX))
                .number(TRIMMED_TOGETHER)
                .number(RECORD_OVERHEAD);
            let through = match core.call(&call).await? {
                Said::Done(rest) => numbers::<1>(&rest)?[0],
                Said::Replaced(now) => return Err(replaced(lane, epoch, now)),
                Said::Range(last) => {
                    return Err(Error::new(ErrorKind::InvalidInput, "that is not there to trim")
                        .with("lane", lane)
                        .with("applied", applied.0)
                        .with("last", last));
                }
                _ => return Err(foreign()),
            };
            if let Some(known) = core.known().lane(lane) {
                known.trimmed = known.trimmed.max(through);
            }
            if through >= applied.0 {
                return Ok(());
            }
        }
    }

    async fn bury(&self, lane: u16, epoch: u64, deaths: &[Death]) -> Result<()> {
        let core = self.core();
        for deaths in deaths.chunks(BURIED_TOGETHER) {
            let keys = &core.keys;
            let keys =
                vec![keys.stream(lane), keys.letters(lane), keys.places(lane), keys.buried(lane)];
            let mut call = self.owned(&JOURNAL_BURY, lane, epoch, keys)?;
            for death in deaths.iter().filter(|death| death.offset.0 < OFFSET_MAX) {
                call = call
                    .number(death.offset.0)
                    .number(cause_number(death.cause))
                    .argument(death.reason.as_bytes());
            }
            match core.call(&call).await? {
                Said::Done(_) => {}
                Said::Replaced(now) => return Err(replaced(lane, epoch, now)),
                _ => return Err(foreign()),
            }
        }
        Ok(())
    }

    async fn dead_letters(
        &self,
        lane: u16,
        after: JournalOffset,
        most: usize,
    ) -> Result<Vec<DeadLetter>> {
        let core = self.core();
        core.check_lane(lane)?;
        let mut letters: Vec<DeadLetter> = Vec::new();
        let mut after = after.0;
        while letters.len() < most {
            let piece = self.piece(most - letters.len());
            let keys = vec![core.keys.letters(lane), core.keys.places(lane)];
            let call = core.script(&JOURNAL_LETTERS, keys).number(after).number(piece);
            let rest = core.call_done(&call).await?;
            let Some(Value::Array(found)) = rest.first() else { return Err(foreign()) };
            for pair in found.chunks(2) {
                let [place, Value::BulkString(letter)] = pair else { return Err(foreign()) };
                after = number(place).ok_or_else(foreign)?;
                letters.push(read_letter(lane, after, letter, |accepted| core.age(accepted))?);
            }
            if found.len() < 2 * piece {
                break;
            }
        }
        core.shared.keep_time();
        Ok(letters)
    }

    async fn replay(
        &self,
        lane: u16,
        letter: JournalOffset,
        instead: Option<&JournalRecord>,
    ) -> Result<Option<JournalOffset>> {
        let core = self.core();
        core.check_lane(lane)?;
        let most = core.options.record_bytes_max;
        let record = instead.map(|record| encode(record, most)).transpose()?;
        let keys = &core.keys;
        let keys = vec![keys.news(), keys.stream(lane), keys.letters(lane), keys.places(lane)];
        let call = core
            .script(&JOURNAL_REPLAY, keys)
            .number(lane)
            .number(letter.0)
            .argument(record.unwrap_or_default())
            .number(core.options.bytes_max)
            .number(RECORD_OVERHEAD);
        // Not made again if its answer is lost: nobody would know what became of it.
        let answer = core.link.call_once(&call).await;
        let (answer, _) = answer.map_err(
            |Silence { error, is_nothing_done, .. }| {
                if is_nothing_done { error } else { unknown(error) }
            },
        )?;
        match core.refuse_other(core.hear(answer)?)? {
            Said::Done(rest) => {
                let place = rest.first().and_then(number);
                if let Some(place) = place {
                    core.known().saw(lane, place);
                }
                Ok(place.map(JournalOffset))
            }
            Said::Full => Err(full(core)),
            Said::Gone => core.restore().await.map(|()| None),
            _ => Err(foreign()),
        }
    }

    async fn drop_letters(&self, lane: u16, letters: &[JournalOffset]) -> Result<usize> {
        let core = self.core();
        core.check_lane(lane)?;
        let mut dropped = 0;
        for letters in letters.chunks(BURIED_TOGETHER) {
            let keys = vec![core.keys.news(), core.keys.letters(lane), core.keys.places(lane)];
            let mut call = core.script(&JOURNAL_DROP, keys).number(RECORD_OVERHEAD);
            for letter in letters {
                call = call.number(letter.0);
            }
            let rest = core.call_done(&call).await?;
            let [count] = numbers(&rest)?;
            dropped += usize::try_from(count).unwrap_or(usize::MAX);
        }
        Ok(dropped)
    }
}

impl fmt::Debug for RedisJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = self.core();
        f.debug_struct("RedisJournal")
            .field("profile", &core.profile)
            .field("node", &core.node)
            .finish_non_exhaustive()
    }
}

/// Above what scripts count to.
const OFFSET_MAX: u64 = 1 << 53;
const ORDERS_WAITING_MAX: usize = 1024;
const BURIED_TOGETHER: usize = 500;
const APPENDED_RECORDS_MAX: usize = 100_000;
const APPENDED_BYTES_MAX: usize = 64 << 20;

/// What `open.lua` says.
struct Opened {
    name: String,
    lanes: u16,
    micros: u64,
}

impl Opened {
    fn read(answer: &Value) -> Option<Self> {
        let Value::Array(parts) = answer else { return None };
        let [_, _, _, _, _, name, lanes, micros] = parts.as_slice() else { return None };
        let lanes = u16::try_from(number(lanes)?).ok()?;
        Some(Self { name: text(name)?, lanes, micros: number(micros)? })
    }
}

/// Whether the server can wait for what it is asked to wait for.
async fn check_acknowledge(link: &Link, acknowledge: Acknowledge) -> Result<()> {
    let command = match acknowledge {
        Acknowledge::Memory => return Ok(()),
        Acknowledge::Replicas(_) => redis::cmd("WAIT").arg(0).arg(1).to_owned(),
        _ => redis::cmd("WAITAOF").arg(1).arg(0).arg(1).to_owned(),
    };
    match link.ask(&command).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::Unavailable && error.message() == REFUSED => {
            Err(Error::new(ErrorKind::Config, "the server cannot tell what is on its disk")
                .caused_by(error)
                .remedy("use Redis or Valkey 7.2 with appendonly yes, or acknowledge less"))
        }
        Err(error) => Err(error),
    }
}

/// What an error says that the server answered.
const REFUSED: &str = "Redis refused a command";

fn numbers<const N: usize>(values: &[Value]) -> Result<[u64; N]> {
    let numbers: Option<Vec<u64>> = values.iter().take(N).map(number).collect();
    numbers.and_then(|numbers| numbers.try_into().ok()).ok_or_else(foreign)
}

fn replaced(lane: u16, epoch: u64, now: u64) -> Error {
    Error::new(ErrorKind::Conflict, "another owner has claimed the lane")
        .with("lane", lane)
        .with("epoch", epoch)
        .with("its epoch", now)
        .remedy("leave the lane to its owner")
}

fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the runtime that appends to the journal has ended")
        .remedy("open the journal on a runtime that outlives it")
}
