//! Whether a server has been the primary all along.

use redis::Value;

use crate::connector::{Open, text};
use crate::shared::Shared;

/// What a server calls its history as a primary. It takes a new name when it starts
/// and when it becomes the primary, and another's while it is a replica: one that
/// has the same name as before has been the primary meanwhile, and kept everything
/// that it had acknowledged in memory.
///
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PrimaryId(String);

impl PrimaryId {
    /// Asks. One round trip. `None` if it is not told: then nobody knows. Nor does
    /// anybody in a cluster, where entries lie on other servers.
    pub(crate) async fn ask(shared: &Shared, open: &mut Open) -> Option<Self> {
        if shared.links.has_slots() {
            return None;
        }
        let mut command = redis::cmd("INFO");
        command.arg("replication");
        let answer = open.connection.send_packed_command(&command).await;
        Self::read(&text(&answer.and_then(Value::extract_error).ok()?)?)
    }

    fn read(info: &str) -> Option<Self> {
        let field = |name: &str| {
            let of_line = |line: &str| Some(line.strip_prefix(name)?.trim().to_owned());
            info.lines().find_map(of_line)
        };
        let id = field("master_replid:").filter(|id| id.chars().any(|c| c != '0'))?;
        (field("role:")? == "master").then_some(Self(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_has_an_id_and_others_have_none() {
        let info = |role: &str, id: &str| {
            format!("# Replication\r\nrole:{role}\r\nmaster_replid:{id}\r\nmaster_replid2:0\r\n")
        };
        assert_eq!(PrimaryId::read(&info("master", "a5b")), Some(PrimaryId("a5b".to_owned())));
        assert_eq!(PrimaryId::read(&info("slave", "a5b")), None);
        assert_eq!(PrimaryId::read(&info("master", "0000")), None, "it has none yet");
        assert_eq!(PrimaryId::read("role:master"), None);
    }
}
