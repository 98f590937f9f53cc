//! What a client asks of a cluster: each command goes to its server, and replies
//! come back in the client's order.

use std::sync::Arc;

use super::super::course::{Course, Touches};
use super::super::link::Link;
use super::super::memory::Memory;
use super::super::request::{Again, Request, To, Void, Wanted};
use super::super::session::{Call, Look, answer_here, count, note_asked, wanted_of, wants_reply};
use super::super::state::FrontSession;
use super::super::validity::NODES_MAX;
use super::super::wire::encode;
use super::super::{Front, FrontWorker};
use super::merge::{Making, Merge};
use super::place::{self, Place};
use super::split::{Part, split};
use crate::keyspace::parse_integer;
use crate::resp::Reply;
use crate::resp::connection::Pause;
use crate::resp::session::Session;

/// What a command needs of its connection, for those that go over shared ones
/// here though they get one of their own elsewhere.
pub(crate) fn needs_own_connection(course: Course, arguments: &[&[u8]]) -> bool {
    match course {
        Course::Apart(_) => matches!(place::of(arguments), Place::Key(_)),
        _ => true,
    }
}

/// Sends a command to where it belongs.
pub(crate) fn pass(
    session: &mut Session,
    state: &mut FrontSession,
    touches: Touches,
    call: &Call<'_>,
    reply: &mut Reply,
) -> Look {
    let worker = Arc::clone(&session.worker);
    let Some(FrontWorker { front, .. }) = &worker.front else { return Look::Done };
    let memory = &front.memory;
    if !state.may_send(memory.validity.moves()) {
        return Look::Again(Pause::Upstream);
    }
    let way = match place::of(call.arguments) {
        Place::Refuse(refusal) => {
            let text = refusal.text(call.arguments[0]);
            return answer_here(session, state, reply, |_, reply| reply.error(&text));
        }
        Place::Key(key) => way_of_key(memory, key, call),
        Place::Any => Way::one(memory.validity.place_of_slot(0).node),
        Place::Disguised => Way {
            making: Some(Making::Disguised),
            ..Way::one(memory.validity.place_of_slot(0).node)
        },
        Place::All(making) => Way {
            making: Some(making),
            parts: memory.validity.owners().into_iter().map(|node| (node, Words::AsSent)).collect(),
        },
        Place::Scan => match page(front, call.arguments) {
            Ok(way) => way,
            Err(PastTheEnd) => {
                return answer_here(session, state, reply, |_, reply| {
                    reply.array(2);
                    reply.bulk(b"0");
                    reply.array(0);
                });
            }
        },
    };
    send(session, state, touches, way, call, reply)
}

/// Which servers get which commands.
struct Way<'a> {
    /// How one reply is made of theirs; as it is, if there is but one.
    making: Option<Making>,
    parts: Vec<(usize, Words<'a>)>,
}

/// A command: as the client sent it, or made for a part of it.
enum Words<'a> {
    AsSent,
    Made(Vec<&'a [u8]>),
    Encoded(Vec<u8>),
}

impl Way<'_> {
    fn one(node: usize) -> Self {
        Self { making: None, parts: vec![(node, Words::AsSent)] }
    }
}

fn way_of_key<'a>(memory: &Memory, key: &[u8], call: &Call<'a>) -> Way<'a> {
    match split(memory, call.arguments) {
        None => Way::one(memory.validity.place(key).node),
        Some((making, parts)) => {
            let part = |Part { slot, arguments, .. }| {
                (memory.validity.place_of_slot(slot).node, Words::Made(arguments))
            };
            Way { making: Some(making), parts: parts.into_iter().map(part).collect() }
        }
    }
}

/// A cursor of a server that is gone, behind all others.
struct PastTheEnd;

/// One page of a scan. The cursor says on which server it goes on: its place is
/// the rest of a division, what the server itself said the quotient.
fn page<'a>(front: &Front, arguments: &[&[u8]]) -> Result<Way<'a>, PastTheEnd> {
    let owners = front.memory.validity.owners();
    let any = owners.first().copied().unwrap_or(0);
    let cursor = arguments.get(1).and_then(|cursor| parse_integer(cursor));
    let Some(cursor) = cursor.and_then(|cursor| usize::try_from(cursor).ok()) else {
        // It says what is wrong.
        return Ok(Way::one(any));
    };
    let (mut place, mut cursor) = (cursor % NODES_MAX, cursor / NODES_MAX);
    if !owners.contains(&place) {
        place = *owners.iter().find(|owner| **owner > place).ok_or(PastTheEnd)?;
        cursor = 0;
    }
    let cursor = cursor.to_string();
    let words = [arguments[0], cursor.as_bytes()].into_iter().chain(arguments[2..].iter().copied());
    let mut command = Vec::new();
    encode(&words.collect::<Vec<_>>(), &mut command);
    let next = owners.iter().copied().find(|owner| *owner > place);
    Ok(Way {
        making: Some(Making::Page { place, next }),
        parts: vec![(place, Words::Encoded(command))],
    })
}

fn send(
    session: &mut Session,
    state: &mut FrontSession,
    touches: Touches,
    way: Way<'_>,
    call: &Call<'_>,
    reply: &Reply,
) -> Look {
    let worker = Arc::clone(&session.worker);
    let Some(front_worker) = &worker.front else { return Look::Done };
    let protocol = reply.protocol();
    let mut links: Vec<Option<Arc<Link>>> = Vec::with_capacity(way.parts.len());
    for (node, _) in &way.parts {
        let link = front_worker.link(&worker, *node, protocol);
        if let Some(link) = link.as_ref().filter(|link| link.is_full()) {
            state.wait_for(link);
            return Look::Again(Pause::Upstream);
        }
        links.push(link);
    }
    let front = &front_worker.front;
    let is_wanted = wants_reply(session);
    let ticket = state.mailbox().take_ticket();
    let merge = way.making.map(|making| {
        let to = (Arc::clone(state.mailbox()), ticket);
        let bytes_max = session.shared.settings.reply_bytes_max.get();
        Merge::new(making, way.parts.len(), to, protocol, bytes_max)
    });
    for (place, ((_, words), link)) in way.parts.into_iter().zip(links).enumerate() {
        let to = match &merge {
            Some(merge) => To::Part(Arc::clone(merge), place),
            None => To::Client(Arc::clone(state.mailbox()), ticket),
        };
        let arguments = match &words {
            Words::Made(arguments) => arguments.as_slice(),
            _ => call.arguments,
        };
        let void = Void::of(touches, arguments);
        void.apply(&front.memory);
        let wanted: Option<Box<Wanted>> =
            if is_wanted { wanted_of(&front.memory, arguments, call.now) } else { None };
        let request = Request {
            to: to.clone(),
            is_wanted,
            void,
            wanted,
            again: Some(Box::<Again>::default()),
        };
        let asked = match link {
            Some(link) => link.ask(request, front.now(), |command| match &words {
                Words::AsSent => call.write(command),
                Words::Made(arguments) => encode(arguments, command),
                Words::Encoded(bytes) => command.extend_from_slice(bytes),
            }),
            None => Err(b"-CLUSTERDOWN Nobody serves this slot\r\n".as_slice().into()),
        };
        if let Err(refusal) = asked {
            front.cluster.refresh();
            to.put(if is_wanted { &refusal } else { b"" }, true);
        }
    }
    state.note_sent();
    note_asked(front, state, touches, call.arguments);
    session.worker.counters.front_passed.add(1);
    count(session, call.arguments);
    Look::Done
}
