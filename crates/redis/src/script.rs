//! The scripts that run inside Redis, each one atomic change.

use std::sync::LazyLock;

use redis::Cmd;

/// A script and its digest.
pub(crate) struct Script {
    source: &'static str,
    digest: LazyLock<String>,
}

macro_rules! scripts {
    ($($name:ident: $($file:literal)*;)*) => {
        $(
            pub(crate) static $name: Script = {
                const SOURCE: &str = concat!($(include_str!(concat!("scripts/", $file)),)*);
                Script {
                    source: SOURCE,
                    digest: LazyLock::new(|| redis::Script::new(SOURCE).get_hash().to_owned()),
                }
            };
        )*
        /// Every script, for tests.
        #[cfg(test)]
        static ALL: &[&Script] = &[$(&$name),*];
    };
}

scripts! {
    JOIN: "frame.lua" "join.lua";
    POLL: "poll.lua";
    VERSION: "frame.lua" "claim.lua" "version.lua";
    PUBLISH: "frame.lua" "invalidate_key.lua" "marks.lua" "claim.lua" "publish.lua";
    INVALIDATE: "frame.lua" "invalidate_key.lua" "invalidate.lua";
    PUT: "frame.lua" "put.lua";
    MARK: "frame.lua" "marks.lua" "mark.lua";
    ACQUIRE: "acquire.lua";
    RELEASE: "release.lua";
    AWAIT: "await.lua";
    JOURNAL_OPEN: "journal/enter.lua" "journal/open.lua";
    JOURNAL_RESTORE: "journal/enter.lua" "journal/restore.lua";
    JOURNAL_APPEND: "journal/enter.lua" "journal/append.lua";
    JOURNAL_CLAIM: "journal/enter.lua" "journal/claim.lua";
    JOURNAL_RENEW: "journal/enter.lua" "journal/renew.lua";
    JOURNAL_RELEASE: "journal/enter.lua" "journal/release.lua";
    JOURNAL_HURRY: "journal/enter.lua" "journal/hurry.lua";
    JOURNAL_TRIM: "journal/enter.lua" "journal/owner.lua" "journal/trim.lua";
    JOURNAL_BURY: "journal/enter.lua" "journal/owner.lua" "journal/bury.lua";
    JOURNAL_BURIED: "journal/enter.lua" "journal/buried.lua";
    JOURNAL_LETTERS: "journal/enter.lua" "journal/letters.lua";
    JOURNAL_REPLAY: "journal/enter.lua" "journal/take_letter.lua" "journal/replay.lua";
    JOURNAL_DROP: "journal/enter.lua" "journal/take_letter.lua" "journal/drop.lua";
    JOURNAL_LOST: "journal/enter.lua" "journal/lost.lua";
    TRY_CONTROL: "try.lua" "try_control.lua";
    TRY_ENTRY: "try.lua" "try_entry.lua";
}

/// One call of a script.
pub(crate) struct Call {
    script: &'static Script,
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) arguments: Vec<Vec<u8>>,
}

impl Call {
    pub(crate) fn new(script: &'static Script, keys: Vec<Vec<u8>>) -> Self {
        Self { script, keys, arguments: Vec::new() }
    }

    /// Adds an argument.
    pub(crate) fn argument(mut self, argument: impl Into<Vec<u8>>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds a number as an argument.
    pub(crate) fn number(self, number: impl std::fmt::Display) -> Self {
        self.argument(number.to_string())
    }

    /// The call of a script that the server knows.
    pub(crate) fn by_digest(&self) -> Cmd {
        self.command("EVALSHA", &self.script.digest)
    }

    /// The same with the script itself, which the server knows from then on.
    pub(crate) fn in_full(&self) -> Cmd {
        self.command("EVAL", self.script.source)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len());
        for part in self.keys.iter().chain(&self.arguments) {
            command.arg(part.as_slice());
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn scripts_differ() {
        let digests: HashSet<&str> = ALL.iter().map(|script| script.digest.as_str()).collect();
        assert_eq!(digests.len(), ALL.len());
        assert!(ALL.iter().all(|script| script.digest.len() == 40));
    }
}
