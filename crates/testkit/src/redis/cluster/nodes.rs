use super::RedisServer;

/// A line of `CLUSTER NODES`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) port: u16,
    flags: Vec<String>,
    /// Of whom it is a replica.
    pub(super) primary: Option<String>,
    /// The first and the last of each range of slots that it serves.
    pub(super) slots: Vec<(u16, u16)>,
}

impl Node {
    pub(super) fn serves(&self, slot: u16) -> bool {
        self.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }

    /// Whether nobody doubts that it is alive.
    pub(super) fn is_well(&self) -> bool {
        let doubtful = ["fail", "fail?", "handshake", "noaddr"];
        !self.flags.iter().any(|flag| doubtful.contains(&flag.as_str()))
    }
}

/// How a server sees the nodes of its cluster.
///
/// # Panics
/// If it does not answer, or with something else.
pub(super) fn of(server: &RedisServer) -> Vec<Node> {
    let text = server.command(&["CLUSTER", "NODES"]).text();
    let node = |line: &str| parse(line).unwrap_or_else(|| panic!("not a node: {line:?}"));
    text.lines().map(node).collect()
}

/// `id ip:port@bus[,name] flags primary ping pong epoch link slot…`
fn parse(line: &str) -> Option<Node> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [id, address, flags, primary, _, _, _, _, slots @ ..] = fields.as_slice() else {
        return None;
    };
    let (address, _) = address.split_once('@')?;
    let (_, port) = address.rsplit_once(':')?;
    // A slot on the move stands in brackets beside those that are served.
    let served = slots.iter().filter(|slot| !slot.starts_with('['));
    let range = |slot: &&str| {
        let (first, last) = slot.split_once('-').unwrap_or((slot, slot));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    Some(Node {
        id: (*id).to_owned(),
        port: port.parse().ok()?,
        flags: flags.split(',').map(str::to_owned).collect(),
        primary: (*primary != "-").then(|| (*primary).to_owned()),
        slots: served.map(range).collect::<Option<_>>()?,
    })
}
