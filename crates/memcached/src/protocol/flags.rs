/// What a reply says beside its code: each is there only if it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct ReplyFlags {
    /// `O`: the token that the request had.
    pub opaque: Option<u32>,
    /// `c`: the number of the item's last change, unique within one run of a
    /// server.
    pub cas: Option<u64>,
    /// `t`: seconds until the item expires; `None` also if it does not.
    pub ttl_secs: Option<u32>,
    /// `f`: the number kept beside the value.
    pub client_flags: Option<u32>,
    /// `W`: whoever reads this is to renew the item.
    pub is_won: bool,
    /// `Z`: somebody else is renewing it.
    pub is_taken: bool,
    /// `X`: the item was marked as stale.
    pub is_stale: bool,
}

impl ReplyFlags {
    /// Reads the tokens behind the code. Flags that nobody here asks for are
    /// passed over; a number that is none makes the line invalid.
    pub(super) fn parse<'a>(tokens: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut flags = Self::default();
        for token in tokens {
            let (flag, argument) = token.split_first()?;
            match flag {
                b'O' => flags.opaque = Some(number(argument)?),
                b'c' => flags.cas = Some(number(argument)?),
                b't' if argument == b"-1" => flags.ttl_secs = None,
                b't' => flags.ttl_secs = Some(number(argument)?),
                b'f' => flags.client_flags = Some(number(argument)?),
                b'W' => flags.is_won = true,
                b'Z' => flags.is_taken = true,
                b'X' => flags.is_stale = true,
                _ => {}
            }
        }
        Some(flags)
    }
}

/// Decimal digits and nothing else.
pub(super) fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
