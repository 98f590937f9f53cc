//! Leases of lanes, who is alive, and news.

use std::time::Duration;

use larder_core::{
    BoxFuture, Error, ErrorKind, JournalCensus, JournalOffset, JournalSharing, LaneCensus,
    LaneHolder, Result,
};
use redis::Value;
use tokio::sync::Mutex;

use super::Inner;
use super::entry::foreign;
use crate::connector::{Open, text};
use crate::discovery::Discovery;
use crate::failure::failed;
use crate::script::{JOURNAL_BURIED, JOURNAL_HURRY, JOURNAL_RELEASE, JOURNAL_RENEW};
use crate::state::number;

/// A connection that waits for news.
pub(super) struct NewsLink {
    discovery: Discovery,
    /// The connection, and the last entry that was heard of.
    heard: Mutex<Option<(Open, String)>>,
}

impl NewsLink {
    /// How long one question waits at the server.
    pub(super) const BLOCK: Duration = Duration::from_secs(5);

    pub(super) fn new(discovery: Discovery) -> Self {
        Self { discovery, heard: Mutex::new(None) }
    }

    /// Waits for the next entry of this stream. Returns at once after it was
    /// connected anew: nobody knows what came meanwhile.
    async fn wait(&self, stream: &[u8]) -> Result<()> {
        let mut place = self.heard.lock().await;
        // What a dropped call leaves behind is another's answer: the place stays empty.
        let Some((mut open, last)) = place.take() else {
            let mut open = self.discovery.open_primary().await?;
            let last = last_entry(&mut open, stream).await?;
            *place = Some((open, last));
            return Ok(());
        };
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(1000).arg("BLOCK").arg(Self::BLOCK.as_millis() as u64);
        command.arg("STREAMS").arg(stream).arg(last.as_str());
        let answer = open.connection.send_packed_command(&command).await;
        let answer = answer.and_then(Value::extract_error);
        let answer = answer.map_err(|error| failed(&error, &open.endpoint.to_string()))?;
        let last = newest(&answer).unwrap_or(last);
        *place = Some((open, last));
        Ok(())
    }
}

/// The id of the last entry of a stream.
async fn last_entry(open: &mut Open, stream: &[u8]) -> Result<String> {
    let mut command = redis::cmd("XREVRANGE");
    command.arg(stream).arg("+").arg("-").arg("COUNT").arg(1);
    let answer = open.connection.send_packed_command(&command).await;
    let answer = answer.and_then(Value::extract_error);
    let answer = answer.map_err(|error| failed(&error, &open.endpoint.to_string()))?;
    let Value::Array(entries) = answer else { return Err(foreign()) };
    Ok(entries.last().and_then(id_of).unwrap_or_else(|| "0-0".to_owned()))
}

/// The id of the last entry that `XREAD` answered, of one stream: a map in RESP3.
fn newest(answer: &Value) -> Option<String> {
    let (_, entries) = answer.as_map_iter()?.next()?;
    let Value::Array(entries) = entries else { return None };
    entries.last().and_then(id_of)
}

fn id_of(entry: &Value) -> Option<String> {
    let Value::Array(parts) = entry else { return None };
    parts.first().and_then(text)
}

impl Inner {
    /// Gives up every claim, as one that lives no more.
    pub(super) async fn give_up_all(&self) -> Result<()> {
        let lanes: Vec<(u16, u64)> =
            (0..).zip(&self.core.known().lanes).map(|(lane, known)| (lane, known.epoch)).collect();
        self.give_up(&lanes, "leave").await
    }

    async fn give_up(&self, claims: &[(u16, u64)], how: &str) -> Result<()> {
        let core = &self.core;
        let keys = vec![core.keys.news(), core.keys.nodes()];
        let mut call =
            core.script(&JOURNAL_RELEASE, keys).argument(core.node.as_bytes()).argument(how);
        for (lane, epoch) in claims {
            call = call.number(lane).number(epoch);
        }
        core.call_done(&call).await.map(drop)
    }

    async fn census(&self, claims: &[(u16, u64)]) -> Result<JournalCensus> {
        let core = &self.core;
        let mut call = core
            .script(&JOURNAL_RENEW, vec![core.keys.nodes(), core.keys.news()])
            .argument(core.node.as_bytes())
            .number(core.options.lease.as_micros())
            .number(core.options.lanes);
        for (lane, epoch) in claims {
            call = call.number(lane).number(epoch);
        }
        let rest = core.call_done(&call).await?;
        let [nodes, Value::Array(lanes)] = rest.as_slice() else { return Err(foreign()) };
        let nodes = number(nodes).and_then(|nodes| usize::try_from(nodes).ok());
        let lanes: Option<Vec<LaneCensus>> = lanes.iter().map(read_lane).collect();
        let census = JournalCensus::new(nodes.ok_or_else(foreign)?, lanes.ok_or_else(foreign)?);
        let mut known = core.known();
        for (known, lane) in known.lanes.iter_mut().zip(&census.lanes) {
            known.highest = known.highest.max(lane.last.0);
            known.trimmed = known.trimmed.max(lane.trimmed.0);
            known.epoch = known.epoch.max(lane.epoch);
        }
        drop(known);
        Ok(census)
    }
}

impl JournalSharing for Inner {
    fn lease(&self) -> Duration {
        self.core.options.lease
    }

    fn renew<'a>(&'a self, claims: &'a [(u16, u64)]) -> BoxFuture<'a, Result<JournalCensus>> {
        Box::pin(self.census(claims))
    }

    fn release<'a>(&'a self, claims: &'a [(u16, u64)]) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.give_up(claims, "stay"))
    }

    fn leave(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.give_up_all())
    }

    fn hurry(&self, lane: u16, to: JournalOffset) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let core = &self.core;
            core.check_lane(lane)?;
            let call = core.script(&JOURNAL_HURRY, vec![core.keys.news()]);
            core.call_done(&call.number(lane).number(to.0)).await.map(drop)
        })
    }

    fn buried(&self, lane: u16) -> BoxFuture<'_, Result<Vec<JournalOffset>>> {
        Box::pin(async move {
            let core = &self.core;
            core.check_lane(lane)?;
            let call = core.script(&JOURNAL_BURIED, vec![core.keys.buried(lane)]);
            let rest = core.call_done(&call).await?;
            let Some(Value::Array(places)) = rest.first() else { return Err(foreign()) };
            let places: Option<Vec<u64>> = places.iter().map(number).collect();
            Ok(places.ok_or_else(foreign)?.into_iter().map(JournalOffset).collect())
        })
    }

    fn news(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let stream = self.core.keys.news();
            self.news.wait(&stream).await.map_err(|error| {
                Error::new(ErrorKind::Unavailable, "no news of the journal").caused_by(error)
            })
        })
    }
}

fn read_lane(value: &Value) -> Option<LaneCensus> {
    let Value::Array(parts) = value else { return None };
    let [holder, epoch, trimmed, last, hurry] = parts.as_slice() else { return None };
    Some(LaneCensus {
        holder: match text(holder)?.as_str() {
            "nobody" => LaneHolder::Nobody,
            "here" => LaneHolder::Here,
            "elsewhere" => LaneHolder::Elsewhere,
            _ => return None,
        },
        epoch: number(epoch)?,
        trimmed: JournalOffset(number(trimmed)?),
        last: JournalOffset(number(last)?),
        hurry_to: JournalOffset(number(hurry)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn a_lane_is_read_and_what_others_wrote_refused() {
        let parts = ["here", "3", "5", "9", "0"].map(bulk).to_vec();
        let lane = read_lane(&Value::Array(parts.clone())).expect("a lane");
        assert_eq!((lane.holder, lane.epoch, lane.last), (LaneHolder::Here, 3, JournalOffset(9)));
        for wrong in [0, 1, 3] {
            let mut parts = parts.clone();
            parts[wrong] = bulk("x");
            assert_eq!(read_lane(&Value::Array(parts)), None);
        }
        assert_eq!(read_lane(&Value::Nil), None);
    }
}
