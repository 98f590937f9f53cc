use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// What a loader or adapter may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A result with Larder's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, coarsely: what a caller branches on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller's input is not acceptable.
    InvalidInput,
    /// Options contradict each other or a file cannot be used.
    Config,
    /// The origin or tier cannot be reached; a later try may succeed.
    Unavailable,
    /// The origin answered with a failure that a later try will not mend.
    OriginFailed,
    /// The hard timeout passed. The work may still have happened.
    Timeout,
    /// The circuit breaker is open: the call was not made.
    BreakerOpen,
    /// A budget or queue is full: the call was not made.
    Overloaded,
    /// A stored value could not be decoded.
    Decode,
    /// A loader panicked.
    Panicked,
    /// The cache is shutting down.
    ShuttingDown,
    /// This adapter cannot do that.
    Unsupported,
    /// A newer version is there already.
    Conflict,
    /// A write was sent and no answer came: it may have happened, and what asked
    /// for it must find out before it asks again.
    OutcomeUnknown,
}

impl ErrorKind {
    /// Whether the same call may succeed later without anything being changed.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Unavailable
                | Self::Timeout
                | Self::BreakerOpen
                | Self::Overloaded
                | Self::Panicked
        )
    }

    const fn name(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid input",
            Self::Config => "configuration",
            Self::Unavailable => "unavailable",
            Self::OriginFailed => "origin failed",
            Self::Timeout => "timeout",
            Self::BreakerOpen => "circuit breaker open",
            Self::Overloaded => "overloaded",
            Self::Decode => "cannot decode",
            Self::Panicked => "panic",
            Self::ShuttingDown => "shutting down",
            Self::Unsupported => "unsupported",
            Self::Conflict => "conflict",
            Self::OutcomeUnknown => "outcome unknown",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The one error of Larder: what failed, with which values, and what to do.
///
/// Cloning costs a reference count: everyone who waited for one load shares its
/// error.
///
/// ```
/// use larder_core::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Config, "the stale window ends before the entry is stale")
///     .with("ttl", "300s")
///     .with("stale_if_error", "60s")
///     .remedy("make stale_if_error longer than ttl");
/// assert_eq!(
///     error.to_string(),
///     "the stale window ends before the entry is stale (ttl: 300s, stale_if_error: 60s); \
///      make stale_if_error longer than ttl",
/// );
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    remedy: Option<Cow<'static, str>>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of this kind. The message says what failed, in lower case and
    /// without a full stop.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            context: Vec::new(),
            remedy: None,
            source: None,
        }))
    }

    /// Wraps what a loader failed with; retryable unless it says otherwise.
    #[must_use]
    pub fn from_loader(source: impl Into<BoxError>) -> Self {
        let source = source.into();
        match source.downcast::<Self>() {
            Ok(error) => *error,
            Err(source) => Self::new(ErrorKind::Unavailable, "the loader failed").caused_by(source),
        }
    }

    /// Adds an offending value or a limit. Never a secret, a cached value or a
    /// row.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        Arc::make_mut(&mut self.0).context.push((name, value.to_string()));
        self
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        Arc::make_mut(&mut self.0).remedy = Some(remedy.into());
        self
    }

    /// Adds the error underneath.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::from(source.into()));
        self
    }

    /// What to branch on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later without anything being changed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }

    /// What failed, without the values.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do about it, if that is known.
    #[must_use]
    pub fn remedy_text(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }

    /// The values added with [`Error::with`].
    pub fn context(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.context.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// The loader's own error, if it failed with a `T`.
    #[must_use]
    pub fn downcast_ref<T: std::error::Error + 'static>(&self) -> Option<&T> {
        self.0.source.as_deref().and_then(|source| source.downcast_ref())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (index, (name, value)) in self.0.context.iter().enumerate() {
            write!(f, "{}{name}: {value}", if index == 0 { " (" } else { ", " })?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        if let Some(remedy) = &self.0.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loader_that_fails_with_our_error_keeps_its_kind() {
        let refused = Error::new(ErrorKind::Overloaded, "the queue is full");
        let boxed: BoxError = Box::new(refused);
        assert_eq!(Error::from_loader(boxed).kind(), ErrorKind::Overloaded);
    }

    #[test]
    fn the_loaders_own_error_can_be_had_back() {
        let io = std::io::Error::other("disk on fire");
        let error = Error::from_loader(io);
        assert!(error.downcast_ref::<std::io::Error>().is_some());
        assert!(error.is_retryable());
        assert_eq!(error.to_string(), "the loader failed: disk on fire");
    }
}
