//! One reply made of those of several servers.

use std::sync::Arc;

use parking_lot::Mutex;

use super::super::frame;
use super::super::mailbox::Mailbox;
use super::super::validity::NODES_MAX;
use crate::resp::{Protocol, Reply};

/// How one reply is made of many.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Making {
    /// The elements of all, each at its place.
    Places(Vec<Vec<usize>>),
    /// The sum.
    Sum,
    /// The first one: all say the same.
    First,
    /// All elements one after the other.
    Lists,
    /// The least of each element.
    Least,
    /// Any of those that are there.
    OneOf,
    /// One page of `SCAN`: on which server, and on which one it goes on.
    Page { place: usize, next: Option<usize> },
    /// A text that says nothing of a cluster.
    Disguised,
}

/// Where the replies of several servers come together. An error of one is the
/// reply; what the others have done is done.
pub(crate) struct Merge {
    making: Making,
    mailbox: Arc<Mailbox>,
    ticket: u64,
    protocol: Protocol,
    bytes_max: usize,
    parts: Mutex<Parts>,
}

struct Parts {
    replies: Vec<Vec<u8>>,
    missing: usize,
    bytes: usize,
}

impl Merge {
    /// Waits for `count` replies, of which there is at least one.
    pub(crate) fn new(
        making: Making,
        count: usize,
        (mailbox, ticket): (Arc<Mailbox>, u64),
        protocol: Protocol,
        bytes_max: usize,
    ) -> Arc<Self> {
        let parts = Parts { replies: vec![Vec::new(); count], missing: count, bytes: 0 };
        Arc::new(Self { making, mailbox, ticket, protocol, bytes_max, parts: Mutex::new(parts) })
    }

    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Takes a reply or a part of it. The last one makes the reply, which is none
    /// if nobody wants it: all parts are empty then.
    pub(crate) fn put(&self, place: usize, bytes: &[u8], is_end: bool) {
        let mut parts = self.parts.lock();
        parts.bytes += bytes.len();
        if parts.bytes > self.bytes_max {
            parts.replies.clear();
            self.mailbox.tear();
        }
        if let Some(reply) = parts.replies.get_mut(place) {
            reply.extend_from_slice(bytes);
        }
        if !is_end {
            return;
        }
        parts.missing -= 1;
        if parts.missing == 0 {
            let replies = std::mem::take(&mut parts.replies);
            drop(parts);
            let is_wanted = replies.iter().any(|reply| !reply.is_empty());
            let made =
                if is_wanted { self.making.make(&replies, self.protocol) } else { Vec::new() };
            self.mailbox.put(self.ticket, &made, true);
        }
    }
}

impl Making {
    /// One reply of many.
    pub(crate) fn make(&self, replies: &[Vec<u8>], protocol: Protocol) -> Vec<u8> {
        if let Some(error) = replies.iter().find(|reply| reply.starts_with(b"-")) {
            return error.clone();
        }
        let mut made = Reply::new(protocol);
        let is_made = match self {
            Self::Places(places) => write_places(places, replies, &mut made),
            Self::Sum => write_sum(replies, &mut made),
            Self::First => replies.first().map(|first| made.buffer_mut().extend(first)),
            Self::Lists => write_lists(replies, &mut made),
            Self::Least => write_least(replies, &mut made),
            Self::OneOf => write_one_of(replies, &mut made),
            Self::Page { place, next } => write_page(replies, *place, *next, &mut made),
            Self::Disguised => write_disguised(replies, &mut made),
        };
        if is_made.is_none() {
            made.buffer_mut().clear();
            made.error("ERR the servers of the cluster did not answer as one");
        }
        std::mem::take(made.buffer_mut())
    }
}

fn write_places(places: &[Vec<usize>], replies: &[Vec<u8>], made: &mut Reply) -> Option<()> {
    let count = places.iter().map(Vec::len).sum();
    let mut elements: Vec<&[u8]> = vec![&[]; count];
    for (places, reply) in places.iter().zip(replies) {
        let found = frame::elements(reply)?;
        if found.len() != places.len() {
            return None;
        }
        for (place, element) in places.iter().zip(found) {
            *elements.get_mut(*place)? = element;
        }
    }
    made.array(count);
    elements.iter().for_each(|element| made.buffer_mut().extend_from_slice(element));
    Some(())
}

fn write_sum(replies: &[Vec<u8>], made: &mut Reply) -> Option<()> {
    let numbers = replies.iter().map(|reply| frame::integer(reply));
    let sum = numbers.sum::<Option<i64>>()?;
    made.integer(sum);
    Some(())
}

fn write_lists(replies: &[Vec<u8>], made: &mut Reply) -> Option<()> {
    let arrays: Vec<_> = replies.iter().map(|reply| frame::array(reply)).collect::<Option<_>>()?;
    made.array(arrays.iter().map(|(count, _)| count).sum());
    arrays.iter().for_each(|(_, elements)| made.buffer_mut().extend_from_slice(elements));
    Some(())
}

fn write_least(replies: &[Vec<u8>], made: &mut Reply) -> Option<()> {
    let mut least: Option<Vec<i64>> = None;
    for reply in replies {
        let elements = frame::elements(reply)?;
        let numbers: Vec<i64> = elements.into_iter().map(frame::integer).collect::<Option<_>>()?;
        least = Some(match least {
            None => numbers,
            Some(least) if least.len() == numbers.len() => {
                least.iter().zip(&numbers).map(|(a, b)| *a.min(b)).collect()
            }
            Some(_) => return None,
        });
    }
    let least = least?;
    made.array(least.len());
    least.into_iter().for_each(|number| made.integer(number));
    Some(())
}

fn write_one_of(replies: &[Vec<u8>], made: &mut Reply) -> Option<()> {
    let there: Vec<_> =
        replies.iter().filter(|reply| matches!(frame::string(reply), Some((Some(_), _)))).collect();
    match there.get(fastrand::usize(..there.len().max(1))) {
        Some(reply) => made.buffer_mut().extend_from_slice(reply),
        None => made.null(),
    }
    Some(())
}

/// The cursor that a server gave, with its place below, and 0 only at the end.
fn write_page(
    replies: &[Vec<u8>],
    place: usize,
    next: Option<usize>,
    made: &mut Reply,
) -> Option<()> {
    let elements = frame::elements(replies.first()?)?;
    let [cursor, keys] = *elements.as_slice() else { return None };
    let (Some(cursor), _) = frame::string(cursor)? else { return None };
    let cursor: u64 = std::str::from_utf8(cursor).ok()?.parse().ok()?;
    let cursor = match cursor {
        0 => next.unwrap_or(0) as u64,
        more => more.checked_mul(NODES_MAX as u64)?.checked_add(place as u64)?,
    };
    made.array(2);
    made.bulk(cursor.to_string().as_bytes());
    made.buffer_mut().extend_from_slice(keys);
    Some(())
}

/// Clients that read of a cluster would look for its servers.
fn write_disguised(replies: &[Vec<u8>], made: &mut Reply) -> Option<()> {
    let text = std::str::from_utf8(frame::text(replies.first()?)?).ok()?;
    let text = text
        .replace("redis_mode:cluster", "redis_mode:standalone")
        .replace("cluster_enabled:1", "cluster_enabled:0");
    made.verbatim(&text);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(making: Making, replies: &[&str]) -> String {
        let mailbox = Mailbox::new(1000);
        let to = (Arc::clone(&mailbox), mailbox.take_ticket());
        let merge = Merge::new(making, replies.len(), to, Protocol::Resp2, 1000);
        for (place, reply) in replies.iter().enumerate().rev() {
            let (first, rest) = reply.split_at(reply.len() / 2);
            merge.put(place, first.as_bytes(), false);
            merge.put(place, rest.as_bytes(), true);
        }
        let mut made = Vec::new();
        mailbox.take(|bytes, _| made.extend_from_slice(bytes));
        String::from_utf8(made).expect("these are text")
    }

    #[test]
    fn replies_become_one() {
        let mget = Making::Places(vec![vec![0, 2], vec![1]]);
        let replies = ["*2\r\n$1\r\na\r\n$-1\r\n", "*1\r\n$1\r\nb\r\n"];
        assert_eq!(merged(mget, &replies), "*3\r\n$1\r\na\r\n$1\r\nb\r\n$-1\r\n");
        assert_eq!(merged(Making::Sum, &[":2\r\n", ":3\r\n"]), ":5\r\n");
        assert_eq!(merged(Making::First, &["+OK\r\n", "+OK\r\n"]), "+OK\r\n");
        let lists = ["*1\r\n$1\r\na\r\n", "*0\r\n", "*1\r\n$1\r\nb\r\n"];
        assert_eq!(merged(Making::Lists, &lists), "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
        let there = ["*2\r\n:1\r\n:1\r\n", "*2\r\n:1\r\n:0\r\n"];
        assert_eq!(merged(Making::Least, &there), "*2\r\n:1\r\n:0\r\n");
        assert_eq!(merged(Making::OneOf, &["$-1\r\n", "$1\r\nk\r\n"]), "$1\r\nk\r\n");
        assert_eq!(merged(Making::OneOf, &["$-1\r\n", "$-1\r\n"]), "$-1\r\n");
        let info = "$37\r\nredis_mode:cluster\r\ncluster_enabled:1\r\n";
        assert_eq!(
            merged(Making::Disguised, &[info]),
            "$40\r\nredis_mode:standalone\r\ncluster_enabled:0\r\n"
        );
    }

    #[test]
    fn an_error_of_one_is_the_reply() {
        let replies = [":1\r\n", "-CLUSTERDOWN x\r\n", "-LOADING x\r\n"];
        assert_eq!(merged(Making::Sum, &replies), "-CLUSTERDOWN x\r\n");
        for (making, reply) in [
            (Making::Sum, "+OK\r\n"),
            (Making::Places(vec![vec![0]]), "*2\r\n:1\r\n:2\r\n"),
            (Making::Places(vec![vec![7]]), "*1\r\n:1\r\n"),
            (Making::Page { place: 0, next: None }, "*1\r\n:1\r\n"),
            (Making::Lists, "$1\r\na\r\n"),
        ] {
            assert!(merged(making, &[reply]).starts_with("-ERR the servers"), "{reply}");
        }
    }

    #[test]
    fn a_scan_goes_from_server_to_server() {
        let page = |place, next, cursor: &str| {
            let reply = format!("*2\r\n${}\r\n{cursor}\r\n*0\r\n", cursor.len());
            let made = merged(Making::Page { place, next }, &[&reply]);
            made.lines().nth(2).map(str::to_owned)
        };
        assert_eq!(page(0, Some(2), "7").as_deref(), Some("3584"));
        assert_eq!(page(0, Some(2), "0").as_deref(), Some("2"));
        assert_eq!(page(2, None, "0").as_deref(), Some("0"));
        assert_eq!(page(2, None, &u64::MAX.to_string()), None, "it does not fit");
    }

    #[test]
    fn what_is_too_much_ends_the_client() {
        let mailbox = Mailbox::new(1000);
        let to = (Arc::clone(&mailbox), mailbox.take_ticket());
        let merge = Merge::new(Making::First, 1, to, Protocol::Resp2, 10);
        merge.put(0, &[b'x'; 11], false);
        merge.put(0, b"\r\n", true);
        assert_eq!(mailbox.take(|_, _| ()), super::super::super::mailbox::Taken::Broken);
    }
}
