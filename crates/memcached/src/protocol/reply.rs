use std::fmt;

use bytes::Bytes;

use super::ReplyFlags;

/// One answer of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reply {
    /// `VA`: the item, with its value.
    Value(Bytes, ReplyFlags),
    /// `HD`: done, or the item without its value.
    Done(ReplyFlags),
    /// `EN`: no such item. It carries no token.
    Missing,
    /// `NS`: not stored, because the mode's condition does not hold.
    NotStored(ReplyFlags),
    /// `EX`: the item was changed since the number compared with was read.
    Exists(ReplyFlags),
    /// `NF`: there is no item to compare with.
    NotFound(ReplyFlags),
    /// `MN`: everything asked before was answered.
    Noop,
    /// `ME`: what the server knows of an item, as `name=value` pairs.
    Debug(Bytes),
    /// One line of statistics: name and value.
    Stat(String, String),
    /// `END`: the last line of statistics.
    End,
    /// `STORED`: name and password were right.
    Stored,
    /// The version of the server.
    Version(String),
    /// An error. It carries no token either.
    Complaint(Complaint),
}

impl Reply {
    /// The flags, of answers that can have some.
    #[must_use]
    pub fn flags(&self) -> Option<&ReplyFlags> {
        match self {
            Self::Value(_, flags)
            | Self::Done(flags)
            | Self::NotStored(flags)
            | Self::Exists(flags)
            | Self::NotFound(flags) => Some(flags),
            _ => None,
        }
    }
}

/// An error line of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// Whose fault it is, as the server sees it.
    pub kind: ComplaintKind,
    /// What it says, printable and cut off at 200 bytes.
    pub text: String,
}

/// Whose fault an error is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ComplaintKind {
    /// `ERROR`: no such command.
    UnknownCommand,
    /// `CLIENT_ERROR`: the request is wrong, or not allowed.
    Client,
    /// `SERVER_ERROR`: the server cannot do it now.
    Server,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ComplaintKind::UnknownCommand => "ERROR",
            ComplaintKind::Client => "CLIENT_ERROR",
            ComplaintKind::Server => "SERVER_ERROR",
        };
        match self.text.as_str() {
            "" => f.write_str(kind),
            text => write!(f, "{kind} {text}"),
        }
    }
}
