use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind};

/// How sensitive a kind of data is (S1), in order. Decides which tiers may hold
/// it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Class {
    /// Anyone may see it; any tier may hold it.
    #[default]
    Public,
    /// Preferences: memory of this process only.
    Preference,
    /// Money: outside this process only encrypted.
    Financial,
    /// Personal data: never cached.
    Personal,
    /// Passwords, tokens, keys: never cached.
    Credential,
}

impl Class {
    /// Every class, from the least to the most sensitive.
    pub const ALL: [Self; 5] =
        [Self::Public, Self::Preference, Self::Financial, Self::Personal, Self::Credential];

    /// Whether any tier may hold data of this class.
    #[must_use]
    pub const fn may_be_cached(self) -> bool {
        !matches!(self, Self::Personal | Self::Credential)
    }

    /// Whether a tier outside the memory of this process may hold data of this
    /// class as it is.
    #[must_use]
    pub const fn may_leave_process(self) -> bool {
        matches!(self, Self::Public)
    }

    /// The name used in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Preference => "preference",
            Self::Financial => "financial",
            Self::Personal => "personal",
            Self::Credential => "credential",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Class {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|class| class.name() == text).ok_or_else(|| {
            Error::new(ErrorKind::Config, "unknown data class")
                .with("class", text)
                .remedy("use public, preference, financial, personal or credential")
        })
    }
}
