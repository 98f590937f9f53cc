//! The contract of Larder: what a key, an entry, a version, a tag and an error
//! are, how time is read, and the seams that adapters implement.
//!
//! Everything above depends on this crate and this crate depends on nothing
//! that talks to the world: no runtime, no network, no file. A new tier, origin
//! or journal is a type in another crate that implements a trait from here.
//!
//! | seam | implemented by | says |
//! |---|---|---|
//! | [`Origin`] | databases, services | where the truth is read and written |
//! | [`Store`] | shared and disk tiers | bytes by key, versions enforced |
//! | [`Codec`] | serializers | how a value becomes bytes |
//! | [`Bus`] | message carriers | what other nodes changed |
//! | [`Journal`] | durable logs | writes acknowledged before the origin has them |
//! | [`Lease`] | shared tiers | who of many nodes may load a key |
//! | [`Clock`] | this crate | monotonic time, real or driven by a test |

mod bus;
mod class;
mod clock;
mod codec;
mod decimal;
mod entry;
mod error;
mod frame;
mod heap_size;
mod journal;
mod key;
mod lease;
mod loaded;
mod machine_clock;
mod moment;
mod origin;
mod store;
mod tag;
mod ttl;
mod version;
mod write;

pub use bus::{
    Announcement, Bus, BusEvent, BusMessage, BusPosition, Change, DynBus, DynSubscription,
    Published, Subscription, Verb, Window,
};
pub use class::Class;
pub use clock::{Clock, ManualClock, Sleep};
pub use codec::{BytesCodec, Codec, JsonCodec};
pub use decimal::Decimal;
pub use entry::{Entry, Value};
pub use error::{BoxError, Error, ErrorKind, Result};
pub use frame::{Frame, frame_layout};
pub use heap_size::{HeapSize, allocation_size};
pub use journal::{
    DeadLetter, Death, DeathCause, DynJournal, Journal, JournalCensus, JournalEntry, JournalOffset,
    JournalProfile, JournalRecord, JournalSharing, JournalUsage, LaneCensus, LaneClaim, LaneHolder,
    Survives,
};
pub use key::{
    Cover, Key, KeyBuilder, KeyPattern, LEVEL_TAG, PatternError, Reach, SharedKey, canonical_json,
    json_hash, level_tag,
};
pub use lease::{DynLease, Lease, LeaseGrant, LeaseToken};
pub use loaded::{LoadCause, LoadContext, Loaded, Outcome};
pub use machine_clock::{MachineClock, MachineTime};
pub use moment::Moment;
pub use origin::{BoxFuture, DynOrigin, Origin};
pub use store::{
    Capabilities, DynStore, HeardUpTo, Mark, PutCondition, PutOutcome, Store, StoredEntry,
};
pub use tag::{Tag, Tags};
pub use ttl::{Ttl, TtlClass};
pub use version::Version;
pub use write::{Action, BatchError, Expected, LaneMark, Write, WriteAbilities, Written};
