//! Whether a server still owns what it owned: asked with each pulse of its
//! tracking connection.
//!
//! A server that others took for dead answers a `PING` for as long as it likes.
//! But it notices within the cluster's node timeout that it is alone, and says so
//! in `CLUSTER INFO`; and whoever takes its slots over does so in a newer epoch,
//! which it hears of before it serves again.

use super::super::frame;

/// The question.
pub(crate) const QUESTION: [&[u8]; 2] = [b"CLUSTER", b"INFO"];

/// What an answer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The server is one of the cluster, and nothing has changed owners.
    Good,
    /// It may have lost slots.
    Doubtful,
}

/// What the answer to [`QUESTION`] says, if the owners of slots were last told in
/// this epoch.
pub(crate) fn verdict(answer: &[u8], epoch_known: u64) -> Verdict {
    match Info::read(answer) {
        Some(info) if info.is_ok && info.epoch <= epoch_known => Verdict::Good,
        _ => Verdict::Doubtful,
    }
}

/// What `CLUSTER INFO` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Info {
    /// Whether the server serves its slots.
    pub(crate) is_ok: bool,
    /// The newest epoch that it has heard of.
    pub(crate) epoch: u64,
}

impl Info {
    /// Reads a reply.
    pub(crate) fn read(answer: &[u8]) -> Option<Self> {
        let text = frame::text(answer)?;
        let field = |name: &str| {
            let text = std::str::from_utf8(text).ok()?;
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        Some(Self {
            is_ok: field("cluster_state")?.trim() == "ok",
            epoch: field("cluster_current_epoch")?.trim().parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(state: &str, epoch: &str, head: &str) -> Vec<u8> {
        let text = format!("cluster_state:{state}\r\ncluster_current_epoch:{epoch}\r\n");
        let length = text.len() + if head == "=" { 4 } else { 0 };
        let kind = if head == "=" { "txt:" } else { "" };
        format!("{head}{length}\r\n{kind}{text}\r\n").into_bytes()
    }

    #[test]
    fn a_server_is_trusted_as_long_as_nothing_has_changed() {
        for head in ["$", "="] {
            assert_eq!(verdict(&answer("ok", "6", head), 6), Verdict::Good);
            assert_eq!(verdict(&answer("ok", "5", head), 6), Verdict::Good);
            assert_eq!(verdict(&answer("ok", "7", head), 6), Verdict::Doubtful);
            assert_eq!(verdict(&answer("fail", "6", head), 6), Verdict::Doubtful);
        }
        for strange in [&b"+PONG\r\n"[..], b"$0\r\n\r\n", b"$-1\r\n", b"$2\r\n\xff\xff\r\n", b""] {
            assert_eq!(verdict(strange, 6), Verdict::Doubtful);
        }
        assert_eq!(verdict(&answer("ok", "x", "$"), 6), Verdict::Doubtful);
    }
}
