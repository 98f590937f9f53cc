use std::sync::Arc;

use bytes::Bytes;
use larder::event_rules::{Event, EventRules, Verdict};
use larder_core::{Error, ErrorKind, Result};
use larder_redis::{RedisEvent, RedisStream};

use crate::serve::Server;

/// Listens to the channel and the stream that the configuration names, for as long as
/// the server runs.
pub(crate) fn listen(server: &Arc<Server>) {
    let Some(shared) = &server.shared_tiers else { return };
    let options = &server.started_with.events;
    if let Some(name) = &options.channel {
        let (rules, mut channel) = (server.events.clone(), shared.redis.channel(name));
        tokio::spawn(async move {
            loop {
                let RedisEvent::Published(bytes) = channel.next().await else { continue };
                let _ = accept(&rules, Event::from_envelope(&bytes)).await;
            }
        });
    }
    if let Some(name) = &options.stream {
        let member = format!("{}-{}", std::process::id(), server.redis_address);
        let stream = shared.redis.stream(name, &options.group, &member);
        tokio::spawn(follow(server.events.clone(), stream));
    }
}

/// Acts upon each entry and acknowledges it. One that could not be acted upon now comes
/// again; one that never can is acknowledged, and told in the log.
async fn follow(rules: EventRules, mut stream: RedisStream) {
    loop {
        let RedisEvent::Entry(id, fields) = stream.next().await else { continue };
        let accepted = accept(&rules, event(&id, &fields)).await;
        let is_done = match &accepted {
            Ok(Verdict::UnderWay) => false,
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::InvalidInput,
        };
        if is_done && let Err(error) = stream.acknowledge(&id).await {
            tracing::debug!(%error, "an event comes again");
        }
    }
}

async fn accept(rules: &EventRules, event: Result<Event>) -> Result<Verdict> {
    let accepted = match event {
        Ok(event) => rules.accept(&event).await,
        Err(error) => {
            rules.note_refused();
            Err(error)
        }
    };
    accepted.inspect_err(|error| tracing::warn!("an event was not acted upon: {error}"))
}

/// An entry of a stream. Its own id tells it from others where it says no other.
fn event(entry: &str, fields: &[(String, Bytes)]) -> Result<Event> {
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let text = |value: &Bytes| String::from_utf8(value.to_vec()).ok();
    let name = field("type").or_else(|| field("event")).and_then(text).ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, "an entry of the stream has no type")
            .with("entry", entry)
            .remedy("XADD stream * type trade.executed data {…}")
    })?;
    let id = field("id").and_then(text).unwrap_or_else(|| entry.to_owned());
    let data = field("data").map_or(&b"null"[..], |data| data);
    Ok(Event::from_json(&name, data)?.id(&id))
}
