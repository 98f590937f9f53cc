//! Events of other services.

use larder::event_rules::{Event, EventRules, Verdict};
use larder_core::{BoxFuture, ErrorKind, Result};

use super::super::Reply;
use super::super::command::{Command, Group, Handler, KeySpec, OnCache};
use super::super::session::Session;
use crate::events::UNDER_WAY;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "larder.event",
    arity: -3,
    syntax: "name json [ID id]",
    summary: "Tells of an event: what the rules of the configuration say is invalidated.",
    group: Group::Larder,
    since: "",
    complexity: "O(N) where N is the number of keys and tags that the rules make of it",
    flags: &["no_multi"],
    keys: KeySpec::NONE,
    on_cache: OnCache::NoKeys,
    handler: Handler::Waiting(event),
}];

fn event<'a>(
    session: &'a mut Session,
    arguments: &'a [&'a [u8]],
    reply: &'a mut Reply,
) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        let Some(rules) = session.shared.routes.events() else {
            return reply.error("ERR there are no rules for events here");
        };
        match accept(rules, &arguments[1..]).await {
            // How many keys, tags and caches it touched; none for one that is known.
            Ok(Verdict::Applied { keys, tags, caches, .. }) => {
                reply.integer((keys + tags + caches) as i64);
            }
            Ok(Verdict::Repeated) => reply.integer(0),
            Ok(Verdict::UnderWay) => reply.error(&format!("TRYAGAIN {UNDER_WAY}")),
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                reply.error(&format!("ERR {error}"));
            }
            Err(error) => reply.error(&format!("TRYAGAIN {error}")),
        }
    })
}

async fn accept(rules: &EventRules, arguments: &[&[u8]]) -> Result<Verdict> {
    match read(arguments) {
        Ok(event) => rules.accept(&event).await,
        Err(error) => {
            rules.note_refused();
            Err(error)
        }
    }
}

fn read(arguments: &[&[u8]]) -> Result<Event> {
    let wrong = |what| larder_core::Error::new(ErrorKind::InvalidInput, what);
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| wrong("this is no text in UTF-8"));
    match *arguments {
        [name, json] => Event::from_json(text(name)?, json),
        [name, json, option, id] if option.eq_ignore_ascii_case(b"id") => {
            Ok(Event::from_json(text(name)?, json)?.id(text(id)?))
        }
        _ => Err(wrong("syntax error, expected name json [ID id]")),
    }
}
