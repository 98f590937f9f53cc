//! What the door is opened with, and what of it `CONFIG SET` may change while
//! it is open.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use larder_core::Clock;

use super::credentials::User;
use super::parser::LINE_BYTES_MAX;
use crate::front::FrontOptions;

/// How the door is opened.
#[derive(Clone, Debug)]
pub struct DoorOptions {
    /// Where to listen. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// How many threads serve at most; one for each core by default.
    pub threads: usize,
    /// Whether only as many of the threads serve as the load needs. Otherwise,
    /// and where the system does not tell the load, all of them do.
    pub is_adaptive: bool,
    /// How many clients may be connected at once.
    pub clients_max: usize,
    /// After how long without a command a client is disconnected; never if
    /// `None`.
    pub idle_timeout: Option<Duration>,
    /// How long a client may take to complete a command that it began, or to
    /// take replies, before it is disconnected; for ever if `None`.
    pub stall_timeout: Option<Duration>,
    /// The longest argument; at most 512 MiB.
    pub bulk_bytes_max: usize,
    /// The longest command, and the most that `MULTI` queues. At least a little
    /// more than the longest argument.
    pub query_bytes_max: usize,
    /// The most bytes of replies that wait for one client; a client whose
    /// replies come to more is disconnected. At least a little more than the
    /// longest argument.
    pub reply_bytes_max: usize,
    /// The password of the user `default`.
    pub password: Option<String>,
    /// Further users.
    pub users: Vec<User>,
    /// Which of the commands `KEYS`, `FLUSHDB` and `FLUSHALL` are obeyed, in
    /// whatever case.
    pub dangerous_commands: Vec<String>,
    /// An existing Redis to stand in front of. What the keyspace holds is then
    /// what is known of it, and every command that Larder does not answer itself
    /// goes there.
    pub front: Option<FrontOptions>,
    /// By what it is told who idles, stalls or is slow to read.
    pub clock: Clock,
}

impl Default for DoorOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 6380)),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            is_adaptive: true,
            clients_max: 10_000,
            idle_timeout: None,
            stall_timeout: Some(Duration::from_secs(60)),
            bulk_bytes_max: 64 * MIB,
            query_bytes_max: 256 * MIB,
            reply_bytes_max: 256 * MIB,
            password: None,
            users: Vec::new(),
            dangerous_commands: Vec::new(),
            front: None,
            clock: Clock::monotonic(),
        }
    }
}

const MIB: usize = 1024 * 1024;

/// The largest argument that the protocol allows at all, as in Redis.
pub(crate) const BULK_BYTES_LIMIT: usize = 512 * MIB;

/// The settings of an open door.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) clients_max: Setting,
    pub(crate) bulk_bytes_max: Setting,
    pub(crate) query_bytes_max: Setting,
    pub(crate) reply_bytes_max: Setting,
    idle_timeout: OptionalDuration,
    stall_timeout: OptionalDuration,
    dangerous_commands: Vec<String>,
}

impl Settings {
    pub(crate) fn new(options: &DoorOptions) -> Self {
        let bulk_bytes_max = options.bulk_bytes_max.min(BULK_BYTES_LIMIT);
        // The largest value must fit into a command and into a reply.
        let around_bulk = bulk_bytes_max + LINE_BYTES_MAX;
        Self {
            clients_max: Setting::new(options.clients_max),
            bulk_bytes_max: Setting::new(bulk_bytes_max),
            query_bytes_max: Setting::new(options.query_bytes_max.max(around_bulk)),
            reply_bytes_max: Setting::new(options.reply_bytes_max.max(around_bulk)),
            idle_timeout: OptionalDuration::new(options.idle_timeout),
            stall_timeout: OptionalDuration::new(options.stall_timeout),
            dangerous_commands: options.dangerous_commands.clone(),
        }
    }

    /// Whether the configuration allows this dangerous command.
    pub(crate) fn allows(&self, name: &str) -> bool {
        self.dangerous_commands.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }

    pub(crate) fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout.get()
    }

    pub(crate) fn set_idle_timeout(&self, timeout: Option<Duration>) {
        self.idle_timeout.set(timeout);
    }

    pub(crate) fn stall_timeout(&self) -> Option<Duration> {
        self.stall_timeout.get()
    }
}

/// A number that may change while it is read.
#[derive(Debug)]
pub(crate) struct Setting(AtomicUsize);

impl Setting {
    fn new(value: usize) -> Self {
        Self(AtomicUsize::new(value))
    }

    #[inline]
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: usize) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Milliseconds, with the largest number for "never".
#[derive(Debug)]
struct OptionalDuration(AtomicU64);

impl OptionalDuration {
    fn new(duration: Option<Duration>) -> Self {
        let setting = Self(AtomicU64::new(0));
        setting.set(duration);
        setting
    }

    fn get(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            u64::MAX => None,
            millis => Some(Duration::from_millis(millis)),
        }
    }

    fn set(&self, duration: Option<Duration>) {
        let millis = duration
            .map_or(u64::MAX, |duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        self.0.store(millis, Ordering::Relaxed);
    }
}
