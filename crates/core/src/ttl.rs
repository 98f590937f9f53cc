use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{Error, ErrorKind, Moment};

/// How long something holds. There is no magic zero: "not at all" is a
/// different statement (`Loaded::dont_cache`), "for ever" is a variant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ttl {
    /// For this long.
    For(Duration),
    /// Until it is invalidated or evicted.
    Forever,
}

impl Ttl {
    /// A TTL of whole seconds.
    #[must_use]
    pub const fn secs(secs: u64) -> Self {
        Self::For(Duration::from_secs(secs))
    }

    /// The moment it ends for something that began at `start`.
    #[must_use]
    pub fn from_start(self, start: Moment) -> Moment {
        match self {
            Self::For(duration) => start + duration,
            Self::Forever => Moment::NEVER,
        }
    }

    /// The duration, if it ends.
    #[must_use]
    pub const fn duration(self) -> Option<Duration> {
        match self {
            Self::For(duration) => Some(duration),
            Self::Forever => None,
        }
    }

    /// The shorter of the two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        match (self, other) {
            (Self::For(a), Self::For(b)) => Self::For(a.min(b)),
            (Self::Forever, other) => other,
            (ttl, Self::Forever) => ttl,
        }
    }
}

impl From<Duration> for Ttl {
    fn from(duration: Duration) -> Self {
        Self::For(duration)
    }
}

/// Ready-made TTLs by kind of data (K2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum TtlClass {
    /// Anything without a better class: 300 s.
    Default,
    /// Reference data that hardly changes: 3600 s.
    Static,
    /// Sessions: 1800 s.
    Session,
    /// Device state: 300 s.
    Device,
    /// Analytics: 900 s.
    Analytics,
    /// Real-time views: 60 s.
    RealTime,
    /// Long-term data: 86400 s.
    LongTerm,
    /// Market prices: 100 ms.
    MarketPrice,
    /// Risk figures: 1 s.
    Risk,
    /// Preferences: 300 s.
    Preferences,
    /// Profiles: 3600 s.
    Profile,
    /// Wallet balances: 300 s.
    WalletBalance,
    /// Exchange rates: 60 s.
    ExchangeRate,
    /// Fraud scores: 300 s.
    FraudScore,
    /// Token blacklists: 86400 s.
    TokenBlacklist,
    /// Transactions: 1800 s.
    Transaction,
    /// Transaction status: 3600 s.
    TransactionStatus,
    /// Connections: 7200 s.
    Connection,
}

impl TtlClass {
    /// Every class with its name and TTL in milliseconds, the one table that
    /// names, defaults and docs come from.
    pub const TABLE: [(Self, &'static str, u64); 18] = [
        (Self::Default, "default", 300_000),
        (Self::Static, "static", 3_600_000),
        (Self::Session, "session", 1_800_000),
        (Self::Device, "device", 300_000),
        (Self::Analytics, "analytics", 900_000),
        (Self::RealTime, "real-time", 60_000),
        (Self::LongTerm, "long-term", 86_400_000),
        (Self::MarketPrice, "market-price", 100),
        (Self::Risk, "risk", 1_000),
        (Self::Preferences, "preferences", 300_000),
        (Self::Profile, "profile", 3_600_000),
        (Self::WalletBalance, "wallet-balance", 300_000),
        (Self::ExchangeRate, "exchange-rate", 60_000),
        (Self::FraudScore, "fraud-score", 300_000),
        (Self::TokenBlacklist, "token-blacklist", 86_400_000),
        (Self::Transaction, "transaction", 1_800_000),
        (Self::TransactionStatus, "transaction-status", 3_600_000),
        (Self::Connection, "connection", 7_200_000),
    ];

    /// The name used in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// How long data of this class holds.
    #[must_use]
    pub fn ttl(self) -> Duration {
        Duration::from_millis(self.row().2)
    }

    fn row(self) -> (Self, &'static str, u64) {
        // The table lists the variants in order of declaration; a test holds it to that.
        Self::TABLE[self as usize]
    }
}

impl From<TtlClass> for Ttl {
    fn from(class: TtlClass) -> Self {
        Self::For(class.ttl())
    }
}

impl fmt::Display for TtlClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TtlClass {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::TABLE.iter().find(|(_, name, _)| *name == text).map(|(class, ..)| *class).ok_or_else(
            || {
                let names: Vec<_> = Self::TABLE.iter().map(|(_, name, _)| *name).collect();
                Error::new(ErrorKind::Config, "unknown TTL class")
                    .with("class", text)
                    .remedy(format!("use one of {}", names.join(", ")))
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_of_declaration() {
        for (index, (class, name, _)) in TtlClass::TABLE.iter().enumerate() {
            assert_eq!(*class as usize, index);
            assert_eq!(name.parse::<TtlClass>().expect("a name of the table parses"), *class);
        }
    }

    #[test]
    fn forever_never_ends() {
        assert!(Ttl::Forever.from_start(Moment::START).is_never());
        assert_eq!(Ttl::Forever.min(Ttl::secs(1)), Ttl::secs(1));
    }
}
