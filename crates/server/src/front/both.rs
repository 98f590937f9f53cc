//! Commands and transactions over keys of caches and keys of Redis.
//!
//! Redis' part is done by Redis, at once if it is a transaction. What caches are
//! asked for is loaded before: where that fails, nothing is done at all.

use std::sync::Arc;

use super::cluster::merge::Making;
use super::frame;
use super::session::{Call, Look, look};
use super::state::receive;
use crate::resp::arguments::OwnedArguments;
use crate::resp::cached::{self, CachedRead};
use crate::resp::connection::Pause;
use crate::resp::session::{Replies, Session};
use crate::resp::table::Entry;
use crate::resp::transaction;
use crate::resp::{Protocol, Reply};

/// A command over both, in two.
pub(crate) struct Halves<'a> {
    pub(crate) entry: &'static Entry,
    /// With the keys of caches.
    pub(crate) caches: Vec<&'a [u8]>,
    /// With the keys of Redis.
    pub(crate) redis: Vec<&'a [u8]>,
    /// How one reply is made of both.
    pub(crate) making: Making,
}

impl<'a> Halves<'a> {
    /// `None` if the command cannot be split.
    pub(crate) fn of(session: &Session, arguments: &[&'a [u8]]) -> Option<Self> {
        let entry = session.shared.table.find(arguments).ok()?;
        let (&name, keys) = arguments.split_first()?;
        let (mut caches, mut redis) = (vec![name], vec![name]);
        let mut places = [Vec::new(), Vec::new()];
        for (place, &key) in keys.iter().enumerate() {
            let is_plain = session.is_plain(key);
            if is_plain { &mut redis } else { &mut caches }.push(key);
            places[usize::from(is_plain)].push(place);
        }
        let making = match entry.cached {
            Some(CachedRead::Mget) => Making::Places(places.to_vec()),
            Some(CachedRead::Exists | CachedRead::Touch) => Making::Sum,
            _ => return None,
        };
        Some(Self { entry, caches, redis, making })
    }
}

/// Answers a command over both, outside a transaction.
pub(crate) async fn answer(session: &mut Session, arguments: &OwnedArguments, reply: &mut Reply) {
    let arguments = arguments.slices();
    let Some(halves) = Halves::of(session, &arguments) else { return };
    let start = reply.as_bytes().len();
    let protocol = reply.protocol();
    let replies = std::mem::replace(&mut session.replies, Replies::On);
    let mut parts = [Reply::new(protocol), Reply::new(protocol)];
    cached::answer(session, halves.entry, &halves.caches, &mut parts[0]).await;
    let is_there = ask_redis(session, &halves.redis, &mut parts[1]).await;
    session.replies = replies;
    if is_there.is_err() {
        // Part of the reply was lost: the client cannot go on.
        session.is_closing = true;
        return;
    }
    let parts = parts.map(|mut part| std::mem::take(part.buffer_mut()));
    reply.buffer_mut().extend_from_slice(&halves.making.make(&parts, protocol));
    session.settle_reply(start, reply);
}

/// Answers a command as if its client had no connection of its own: over caches
/// and Redis, or in a cluster.
///
/// # Errors
/// If part of a reply was lost: the connection cannot go on.
pub(crate) async fn ask_whole(
    session: &mut Session,
    arguments: &OwnedArguments,
    reply: &mut Reply,
) -> std::io::Result<()> {
    let slices = arguments.slices();
    let keys = slices.iter().skip(1);
    let has_both = !session.shared.routes.is_empty()
        && keys.clone().any(|key| session.is_plain(key))
        && keys.clone().any(|key| !session.is_plain(key));
    if has_both && Halves::of(session, &slices).is_some() {
        answer(session, arguments, reply).await;
        return Ok(());
    }
    ask_redis(session, &slices, reply).await
}

/// Asks Redis, or memory for it, and waits for the reply.
async fn ask_redis(
    session: &mut Session,
    arguments: &[&[u8]],
    reply: &mut Reply,
) -> std::io::Result<()> {
    loop {
        let Some(mut state) = session.front.take() else { return Ok(()) };
        let call = Call { arguments, raw: None, now: session.shared.clock.now() };
        let looked = look(session, &mut state, &call, reply);
        session.front = Some(state);
        let is_done = match looked {
            Look::Done => true,
            Look::Again(Pause::Upstream) => false,
            Look::Again(_) | Look::Then(_) => {
                reply.error("ERR this command cannot be split");
                return Ok(());
            }
        };
        while receive(session, reply).await? {}
        if is_done {
            return Ok(());
        }
    }
}

/// What `EXEC` answers at one place of its list.
pub(crate) enum Planned {
    /// What Redis says, at so many places.
    Redis(usize),
    /// What a cache says.
    Cache(&'static Entry, OwnedArguments),
    /// What both say.
    Both { entry: &'static Entry, caches: OwnedArguments, making: Making },
}

impl Planned {
    /// How much it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Redis(_) => 1,
            Self::Cache(_, arguments) | Self::Both { caches: arguments, .. } => arguments.bytes(),
        }
    }

    fn places(&self) -> usize {
        match self {
            Self::Redis(count) => *count,
            _ => 1,
        }
    }

    fn of_cache(&self) -> Option<(&'static Entry, &OwnedArguments)> {
        match self {
            Self::Redis(_) => None,
            Self::Cache(entry, arguments) | Self::Both { entry, caches: arguments, .. } => {
                Some((entry, arguments))
            }
        }
    }
}

/// Adds a place to a plan.
pub(crate) fn add(plan: &mut Vec<Planned>, planned: Planned) {
    match (plan.last_mut(), planned) {
        (Some(Planned::Redis(count)), Planned::Redis(more)) => *count += more,
        (_, planned) => plan.push(planned),
    }
}

/// What is known of a place before Redis has said anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Known {
    Redis(usize),
    Whole(Vec<u8>),
    Half(Vec<u8>, Making),
}

/// Loads what a transaction reads from caches, and answers that.
///
/// # Errors
/// The reply to `EXEC`, if something could not be loaded.
pub(crate) async fn load(
    session: &mut Session,
    plan: &[Planned],
    protocol: Protocol,
) -> Result<Vec<Known>, Vec<u8>> {
    let shared = Arc::clone(&session.shared);
    let calls: Vec<_> = plan.iter().filter_map(Planned::of_cache).collect();
    let loaded = transaction::load(&shared, calls.iter().copied()).await;
    if let Some(error) = loaded.values().find_map(|answer| answer.as_ref().err()) {
        let mut refusal = Reply::new(protocol);
        let why = cached::load_error(error);
        let why = why.strip_prefix("ERR ").unwrap_or(&why);
        refusal.error(&format!("EXECABORT Transaction discarded because of: {why}"));
        return Err(refusal.as_bytes().to_vec());
    }
    let answered = |planned: &Planned| {
        let Some((entry, arguments)) = planned.of_cache() else {
            return Known::Redis(planned.places());
        };
        let mut reply = Reply::new(protocol);
        let mut locked = shared.keyspace.lock([]);
        let arguments = arguments.slices();
        cached::answer_loaded(session, &mut locked, entry, &arguments, &loaded, &mut reply);
        session.count_call(entry, reply.as_bytes());
        let bytes = std::mem::take(reply.buffer_mut());
        match planned {
            Planned::Both { making, .. } => Known::Half(bytes, making.clone()),
            _ => Known::Whole(bytes),
        }
    };
    Ok(plan.iter().map(answered).collect())
}

/// The reply to `EXEC`: what Redis says in its places, what caches said in
/// theirs.
pub(crate) fn together(known: &[Known], exec: &[u8], protocol: Protocol) -> Vec<u8> {
    let mut made = Reply::new(protocol);
    // An error, or that a watched key has changed.
    if !exec.starts_with(b"*") || exec.starts_with(b"*-1") {
        return exec.to_vec();
    }
    let of_redis = frame::elements(exec).unwrap_or_default();
    let expected: usize = known.iter().map(Known::asked_of_redis).sum();
    if of_redis.len() != expected {
        made.error("ERR Redis answered another transaction than it was given");
        return std::mem::take(made.buffer_mut());
    }
    let mut of_redis = of_redis.into_iter();
    let whole = known.iter().filter(|known| matches!(known, Known::Whole(_))).count();
    made.array(expected + whole);
    for known in known {
        match known {
            Known::Whole(bytes) => made.buffer_mut().extend_from_slice(bytes),
            Known::Redis(count) => of_redis
                .by_ref()
                .take(*count)
                .for_each(|element| made.buffer_mut().extend_from_slice(element)),
            Known::Half(bytes, making) => {
                let half = of_redis.next().unwrap_or_default().to_vec();
                let whole = making.make(&[bytes.clone(), half], protocol);
                made.buffer_mut().extend_from_slice(&whole);
            }
        }
    }
    std::mem::take(made.buffer_mut())
}

impl Known {
    fn asked_of_redis(&self) -> usize {
        match self {
            Self::Redis(count) => *count,
            Self::Half(..) => 1,
            Self::Whole(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_both_stand_in_the_order_of_the_commands() {
        let known = [
            Known::Whole(b"$3\r\nrow\r\n".to_vec()),
            Known::Redis(1),
            Known::Half(b":1\r\n".to_vec(), Making::Sum),
            Known::Half(b"*1\r\n$1\r\nc\r\n".to_vec(), Making::Places(vec![vec![1], vec![0]])),
        ];
        let exec = b"*3\r\n+OK\r\n:2\r\n*1\r\n$1\r\nr\r\n";
        let made = together(&known, exec, Protocol::Resp2);
        let expected = "*4\r\n$3\r\nrow\r\n+OK\r\n:3\r\n*2\r\n$1\r\nr\r\n$1\r\nc\r\n";
        assert_eq!(String::from_utf8_lossy(&made), expected);
        for other in [&b"*-1\r\n"[..], b"_\r\n", b"-EXECABORT x\r\n"] {
            assert_eq!(together(&known, other, Protocol::Resp3), other);
        }
        let short = together(&known, b"*1\r\n+OK\r\n", Protocol::Resp2);
        assert!(short.starts_with(b"-ERR"), "what is missing is not made up");
    }
}
