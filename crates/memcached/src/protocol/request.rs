use std::fmt;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use larder_core::{Error, ErrorKind, Result};

/// The longest key on the wire, in bytes.
pub const KEY_BYTES_MAX: usize = 250;

/// A key as it is sent: printable keys as they are, all others in base64 with
/// the flag `b`. Both name the item with these bytes, so it makes no difference
/// to the server which way a key was sent.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WireKey {
    text: Box<[u8]>,
    is_base64: bool,
}

impl WireKey {
    /// The key with these bytes, or `None` if it is empty or longer than
    /// [`KEY_BYTES_MAX`] as it is sent.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        // What is longer now does not become shorter in base64.
        if bytes.is_empty() || bytes.len() > KEY_BYTES_MAX {
            return None;
        }
        let is_base64 = !bytes.iter().all(u8::is_ascii_graphic);
        let text: Box<[u8]> =
            if is_base64 { STANDARD.encode(bytes).into_bytes().into() } else { bytes.into() };
        (text.len() <= KEY_BYTES_MAX).then_some(Self { text, is_base64 })
    }

    /// What is sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }
}

impl fmt::Debug for WireKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.text.escape_ascii())
    }
}

/// When [`Request::set`] stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Always.
    Set,
    /// Only if there is no such item.
    Add,
    /// Only if there is one.
    Replace,
}

/// One request of the meta protocol.
///
/// ```
/// use larder_memcached::protocol::{Request, WireKey};
///
/// let key = WireKey::new(b"album:42").expect("it is short");
/// let request = Request::get(key).with_value().with_cas();
/// assert_eq!(format!("{request:?}"), "mg album:42 v c");
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub struct Request {
    command: &'static [u8],
    key: Option<WireKey>,
    /// Each with a space before it.
    flags: Vec<u8>,
    value: Option<Bytes>,
    kind: Kind,
}

/// How a request is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// By one line with its token. A miss of a `mg` has none, and is silent if
    /// the request was sent as quiet.
    Item {
        /// Whether a miss may be silent.
        may_be_quiet: bool,
    },
    /// By one line without a token.
    Line,
    /// By lines of statistics up to an `END`.
    Statistics,
}

impl Request {
    /// `mg`: reads an item; what of it is said by the methods that follow.
    pub fn get(key: WireKey) -> Self {
        Self::item(b"mg", key, None, true)
    }

    /// `ms`: stores an item that expires never, unless [`Request::expires_at`]
    /// follows.
    pub fn set(key: WireKey, value: Bytes, mode: Mode) -> Self {
        let request = Self::item(b"ms", key, Some(value), false);
        match mode {
            Mode::Set => request,
            Mode::Add => request.flag(format_args!("ME")),
            Mode::Replace => request.flag(format_args!("MR")),
        }
    }

    /// `md`: deletes an item.
    pub fn delete(key: WireKey) -> Self {
        Self::item(b"md", key, None, false)
    }

    /// `ma`: adds to a number, wrapping at 64 bits. The reply's value is the
    /// sum. With `initial` the item is made, with this value and for this many
    /// seconds, if it is missing.
    pub fn add(key: WireKey, delta: u64, initial: Option<(u64, u32)>) -> Self {
        let request = Self::item(b"ma", key, None, false).flag(format_args!("v D{delta}"));
        match initial {
            Some((value, ttl_secs)) => request.flag(format_args!("J{value} N{ttl_secs}")),
            None => request,
        }
    }

    /// `me`: what the server knows of an item beside its value. `None` for a key
    /// that is sent in base64: servers repeat it as it was before, line ends
    /// included, and nobody could tell where the answer ends.
    #[must_use]
    pub fn debug(key: WireKey) -> Option<Self> {
        let is_printable = !key.is_base64;
        let request = Self { kind: Kind::Line, ..Self::item(b"me", key, None, false) };
        is_printable.then_some(request)
    }

    /// `mn`: nothing, answered once everything before is.
    pub fn noop() -> Self {
        Self::bare(b"mn", Kind::Line)
    }

    pub(crate) fn statistics() -> Self {
        Self::bare(b"stats", Kind::Statistics)
    }

    pub(crate) fn settings() -> Self {
        Self::bare(b"stats settings", Kind::Statistics)
    }

    /// Name and password travel as the value of a `set` whose key means nothing.
    pub(crate) fn authenticate(user: &str, password: &str) -> Self {
        let credentials = Bytes::from(format!("{user} {password}"));
        let flags = format!(" auth 0 0 {}", credentials.len()).into_bytes();
        Self { flags, value: Some(credentials), ..Self::bare(b"set", Kind::Line) }
    }

    /// Asks for the value (`v`).
    pub fn with_value(self) -> Self {
        self.flag(format_args!("v"))
    }

    /// Asks for the number of the last change (`c`).
    pub fn with_cas(self) -> Self {
        self.flag(format_args!("c"))
    }

    /// Asks for the seconds left (`t`).
    pub fn with_ttl(self) -> Self {
        self.flag(format_args!("t"))
    }

    /// Asks for the number beside the value (`f`).
    pub fn with_client_flags(self) -> Self {
        self.flag(format_args!("f"))
    }

    /// Makes an empty item for so many seconds if it is missing (`N`), and tells
    /// one of all readers that it has won. A miss is no longer silent.
    pub fn vivify(self, ttl_secs: u32) -> Self {
        let kind = Kind::Item { may_be_quiet: false };
        Self { kind, ..self.flag(format_args!("N{ttl_secs}")) }
    }

    /// Only if the last change has this number (`C`).
    pub fn compare(self, cas: u64) -> Self {
        self.flag(format_args!("C{cas}"))
    }

    /// When the item expires, in seconds as the server counts them (`T`): since
    /// 1970, or from now if it is at most 30 days.
    pub fn expires_at(self, secs: u32) -> Self {
        self.flag(format_args!("T{secs}"))
    }

    /// A number to keep beside the value (`F`).
    pub fn client_flags(self, number: u32) -> Self {
        self.flag(format_args!("F{number}"))
    }

    /// How it is answered.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Appends what is sent.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if a line would be longer than servers read.
    pub(crate) fn encode(&self, opaque: u32, is_quiet: bool, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.extend_from_slice(self.command);
        if let Some(key) = &self.key {
            out.push(b' ');
            out.extend_from_slice(&key.text);
            if self.command == b"ms" {
                let bytes = self.value.as_ref().map_or(0, Bytes::len);
                append(out, format_args!(" {bytes}"));
            }
            if key.is_base64 {
                out.extend_from_slice(b" b");
            }
            if matches!(self.kind, Kind::Item { .. }) {
                append(out, format_args!(" O{opaque}"));
            }
            if is_quiet {
                out.extend_from_slice(b" q");
            }
        }
        out.extend_from_slice(&self.flags);
        out.extend_from_slice(b"\r\n");
        if out.len() - start > LINE_BYTES_MAX {
            return Err(Error::new(ErrorKind::InvalidInput, "the request is too long to be sent")
                .with("bytes", out.len() - start)
                .with("bytes_max", LINE_BYTES_MAX));
        }
        if let Some(value) = &self.value {
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    fn item(
        command: &'static [u8],
        key: WireKey,
        value: Option<Bytes>,
        may_be_quiet: bool,
    ) -> Self {
        let kind = Kind::Item { may_be_quiet };
        Self { command, key: Some(key), flags: Vec::new(), value, kind }
    }

    fn bare(command: &'static [u8], kind: Kind) -> Self {
        Self { command, key: None, flags: Vec::new(), value: None, kind }
    }

    fn flag(mut self, flag: fmt::Arguments<'_>) -> Self {
        append(&mut self.flags, format_args!(" {flag}"));
        self
    }
}

impl fmt::Debug for Request {
    /// Without the value: it may be a password, or anybody's data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.as_ref().map(WireKey::as_bytes).unwrap_or_default();
        let space = if key.is_empty() { "" } else { " " };
        let (command, key) = (self.command.escape_ascii(), key.escape_ascii());
        write!(f, "{command}{space}{key}{}", self.flags.escape_ascii())
    }
}

/// Servers give up on lines longer than this.
const LINE_BYTES_MAX: usize = 2048;

fn append(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes what is written");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(request: &Request, is_quiet: bool) -> String {
        let mut out = Vec::new();
        request.encode(7, is_quiet, &mut out).expect("it is short");
        out.escape_ascii().to_string()
    }

    fn key(bytes: &[u8]) -> WireKey {
        WireKey::new(bytes).expect("it is short")
    }

    #[test]
    fn requests_are_spelled_as_the_protocol_wants_them() {
        let value = || Bytes::from_static(b"hi");
        for (request, expected) in [
            (Request::get(key(b"a")).with_value().with_cas(), r"mg a O7 v c\r\n"),
            (Request::get(key(b"a b")), r"mg YSBi b O7\r\n"),
            (Request::get(key(b"a")).with_ttl().vivify(5), r"mg a O7 t N5\r\n"),
            (
                Request::set(key(b"a"), value(), Mode::Set).expires_at(9).client_flags(3),
                r"ms a 2 O7 T9 F3\r\nhi\r\n",
            ),
            (Request::set(key(&[0]), value(), Mode::Add), r"ms AA== 2 b O7 ME\r\nhi\r\n"),
            (
                Request::set(key(b"a"), value(), Mode::Replace).compare(4).with_cas(),
                r"ms a 2 O7 MR C4 c\r\nhi\r\n",
            ),
            (Request::delete(key(b"a")).compare(4), r"md a O7 C4\r\n"),
            (Request::add(key(b"a"), 3, Some((1, 60))), r"ma a O7 v D3 J1 N60\r\n"),
            (Request::debug(key(b"a")).expect("it is printable"), r"me a\r\n"),
            (Request::noop(), r"mn\r\n"),
            (Request::authenticate("user", "word"), r"set auth 0 0 9\r\nuser word\r\n"),
        ] {
            assert_eq!(encoded(&request, false), expected);
        }
        assert_eq!(Request::debug(key(b"a\r\nEN")), None);
        assert_eq!(encoded(&Request::get(key(b"a")).with_value(), true), r"mg a O7 q v\r\n");
    }

    #[test]
    fn what_is_printed_of_a_request_has_no_password_and_no_value() {
        let request = Request::authenticate("user", "word");
        assert!(!format!("{request:?}").contains("word"));
        let request = Request::set(key(b"a"), Bytes::from_static(b"secret"), Mode::Set);
        assert_eq!(format!("{request:?}"), "ms a");
    }

    #[test]
    fn a_key_is_sent_if_it_is_short_enough_as_it_is_sent() {
        assert!(WireKey::new(b"").is_none());
        assert!(WireKey::new(&[b'k'; 250]).is_some());
        assert!(WireKey::new(&[b'k'; 251]).is_none());
        assert!(WireKey::new(&[0; 186]).is_some());
        assert!(WireKey::new(&[0; 187]).is_none());
    }
}
