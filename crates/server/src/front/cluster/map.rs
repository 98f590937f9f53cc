//! Who owns what, as `CLUSTER SHARDS` tells it.

use std::ops::RangeInclusive;

use super::super::frame;
use super::slot::SLOTS;

/// The question.
pub(crate) const QUESTION: [&[u8]; 2] = [b"CLUSTER", b"SHARDS"];

/// The primary of some slots, or of none yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Primary {
    /// Empty if it is the host that was asked.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) slots: Vec<RangeInclusive<usize>>,
    /// Whether the server that was asked takes it for alive.
    pub(crate) is_online: bool,
}

/// Reads a reply in RESP2. `None` if it is none of `CLUSTER SHARDS`.
pub(crate) fn read(reply: &[u8], is_tls: bool) -> Option<Vec<Primary>> {
    let mut primaries = Vec::new();
    for shard in frame::elements(reply)? {
        let fields = frame::elements(shard)?;
        let slots = slots(field(&fields, b"slots")?)?;
        for node in frame::elements(field(&fields, b"nodes")?)? {
            let node = frame::elements(node)?;
            if field_text(&node, b"role").as_deref() != Some("master") {
                continue;
            }
            let port = if is_tls { b"tls-port".as_slice() } else { b"port" };
            let port = field(&node, port).or_else(|| field(&node, b"port"))?;
            let host = field_text(&node, b"endpoint").or_else(|| field_text(&node, b"ip"));
            primaries.push(Primary {
                host: host.filter(|host| host != "?").unwrap_or_default(),
                port: u16::try_from(frame::integer(port)?).ok()?,
                slots: slots.clone(),
                is_online: field_text(&node, b"health").as_deref() == Some("online"),
            });
        }
    }
    Some(primaries)
}

/// Pairs of a first and a last slot.
fn slots(value: &[u8]) -> Option<Vec<RangeInclusive<usize>>> {
    let bounds: Vec<usize> = frame::elements(value)?
        .into_iter()
        .map(|bound| usize::try_from(number(bound)?).ok().filter(|slot| *slot < SLOTS))
        .collect::<Option<_>>()?;
    Some(bounds.chunks_exact(2).map(|pair| pair[0]..=pair[1]).collect())
}

/// A number, as such or as a string.
fn number(value: &[u8]) -> Option<i64> {
    frame::integer(value).or_else(|| match frame::string(value)? {
        (Some(text), _) => crate::keyspace::parse_integer(text),
        _ => None,
    })
}

/// The value of a field in a list of names and values.
fn field<'a>(fields: &[&'a [u8]], name: &[u8]) -> Option<&'a [u8]> {
    let is_it =
        |pair: &&[&[u8]]| matches!(frame::string(pair[0]), Some((Some(it), _)) if it == name);
    fields.chunks_exact(2).find(is_it).map(|pair| pair[1])
}

/// The text of a field in a list of names and values.
pub(crate) fn field_text(fields: &[&[u8]], name: &[u8]) -> Option<String> {
    match frame::string(field(fields, name)?)? {
        (Some(text), _) => String::from_utf8(text.to_vec()).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strings(words: &[&str]) -> String {
        let words: String =
            words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        words
    }

    fn node(port: u16, endpoint: &str, role: &str, health: &str) -> String {
        let name = strings(&["id", "0f", "port"]);
        let rest = strings(&["ip", "10.0.0.9", "endpoint", endpoint, "role", role]);
        let health = strings(&["health", health, "tls-port"]);
        format!("*14\r\n{name}:{port}\r\n{rest}{health}:{}\r\n", port + 1)
    }

    fn shard(slots: &[usize], nodes: &[String]) -> String {
        let count = slots.len();
        let slots: String = slots.iter().map(|slot| format!(":{slot}\r\n")).collect();
        format!(
            "*4\r\n{}*{count}\r\n{slots}{}*{}\r\n{}",
            strings(&["slots"]),
            strings(&["nodes"]),
            nodes.len(),
            nodes.concat()
        )
    }

    #[test]
    fn primaries_and_their_slots_are_read() {
        let replica = node(7003, "10.0.0.3", "replica", "online");
        let first = node(7000, "10.0.0.1", "master", "online");
        let second = node(7001, "?", "master", "fail");
        let reply = format!(
            "*2\r\n{}{}",
            shard(&[0, 5000, 9000, 9000], &[replica, first]),
            shard(&[], &[second])
        );
        let primary = |host: &str, port, slots: &[RangeInclusive<usize>], is_online| Primary {
            host: host.to_owned(),
            port,
            slots: slots.to_vec(),
            is_online,
        };
        let expected = |more: u16| {
            vec![
                primary("10.0.0.1", 7000 + more, &[0..=5000, 9000..=9000], true),
                primary("", 7001 + more, &[], false),
            ]
        };
        assert_eq!(read(reply.as_bytes(), false), Some(expected(0)));
        assert_eq!(read(reply.as_bytes(), true), Some(expected(1)));
        assert_eq!(read(&reply.as_bytes()[..reply.len() - 1], false), None);
        assert_eq!(read(b"-ERR unknown\r\n", false), None);
        let beyond = format!("*1\r\n{}", shard(&[0, 16_384], &[]));
        assert_eq!(read(beyond.as_bytes(), false), None);
    }

    proptest! {
        #[test]
        fn any_reply_is_read_or_not(reply in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&reply, true);
        }
    }
}
