//! Sentinels say who the primary is. When they name another one, everything goes
//! there, and memory begins anew.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{Error, ErrorKind, Result};

use super::cluster::map::field_text;
use super::cluster::topology::{retire, track};
use super::frame;
use super::nodes::Node;
use super::options::FrontTopology;
use super::wire::{Upstream, Wire};
use super::{Front, FrontOptions};
use crate::resp::Protocol;

/// How often they are asked though nobody is in doubt.
const EVERY: Duration = Duration::from_secs(1);

/// However much doubt there is, they are not asked sooner again.
const PAUSE: Duration = Duration::from_millis(50);

/// One that does not answer for so long is passed over.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whom a sentinel takes for the primary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Named {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Moves on with each failover.
    epoch: u64,
}

/// The sentinels that the options name, with their own login.
///
/// # Errors
/// As [`Upstream::new`].
pub(crate) fn upstreams(options: &FrontOptions) -> Result<Vec<Upstream>> {
    let FrontTopology::Sentinel { sentinels, user, password, .. } = &options.topology else {
        return Ok(Vec::new());
    };
    let open = |(host, port): &(String, u16)| {
        let mut own = options.upstream.clone();
        (own.host, own.port, own.database) = (host.clone(), *port, 0);
        (own.user, own.password) = (user.clone(), password.clone());
        Upstream::new(own)
    };
    sentinels.iter().map(open).collect()
}

/// Asks one sentinel after the other who the primary is, and whether that one
/// takes it for so, too.
///
/// # Errors
/// [`ErrorKind::Unavailable`] if none names one that does,
/// [`ErrorKind::Config`] if a login is refused or the service is not known.
pub(crate) async fn find(options: &FrontOptions, login: &Upstream) -> Result<Named> {
    let mut failure = Error::new(ErrorKind::Config, "no sentinel is named");
    for sentinel in upstreams(options)? {
        let found = async {
            let mut wire = sentinel.connect(Protocol::Resp2).await?;
            let named = ask(&sentinel, &mut wire, service(options)).await?;
            verify(login, &named).await?;
            Ok(named)
        };
        match found.await {
            Ok(named) => return Ok(named),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Keeps asking, for ever.
pub(crate) async fn run(front: &Arc<Front>) {
    if let Some(node) = front.nodes.get(0)
        && node.begin_tracking()
    {
        tokio::spawn(track(Arc::clone(front), node));
    }
    let mut turn = 0;
    loop {
        turn += 1;
        for place in 0..front.seeds.len() {
            let sentinel = &front.seeds[(place + turn) % front.seeds.len()];
            let asked = tokio::time::timeout(PATIENCE, ask_and_verify(front, sentinel)).await;
            if let Ok(Some(named)) = asked {
                apply(front, &named);
                break;
            }
        }
        tokio::time::sleep(PAUSE).await;
        tokio::select! {
            () = front.cluster.wanted() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

fn service(options: &FrontOptions) -> &str {
    match &options.topology {
        FrontTopology::Sentinel { service, .. } => service,
        _ => "",
    }
}

async fn ask_and_verify(front: &Front, sentinel: &Upstream) -> Option<Named> {
    let mut wire = sentinel.connect(Protocol::Resp2).await.ok()?;
    let named = ask(sentinel, &mut wire, service(&front.options)).await.ok()?;
    // Whoever lags behind must not bring an old primary back.
    if named.epoch < front.cluster.epoch() {
        return None;
    }
    let is_known = current(front).is_some_and(|node| node.is_at(&named.host, named.port));
    if !is_known {
        verify(&front.login, &named).await.ok()?;
    }
    Some(named)
}

async fn ask(sentinel: &Upstream, wire: &mut Wire, service: &str) -> Result<Named> {
    let question = [b"SENTINEL".as_slice(), b"MASTER", service.as_bytes()];
    let reply = sentinel.ask_in_time(wire, "SENTINEL MASTER", &question).await?;
    read(&reply).ok_or_else(|| sentinel.unavailable(&"it does not say who the primary is"))
}

/// Reads a list of names and values.
pub(crate) fn read(reply: &[u8]) -> Option<Named> {
    let fields = frame::elements(reply)?;
    Some(Named {
        host: field_text(&fields, b"ip")?,
        port: field_text(&fields, b"port")?.parse().ok().filter(|port| *port > 0)?,
        epoch: field_text(&fields, b"config-epoch")?.parse().ok()?,
    })
}

/// Whether the server that was named takes itself for a primary. One that refuses
/// to say is believed.
async fn verify(login: &Upstream, named: &Named) -> Result<()> {
    let upstream = login.beside(&named.host, named.port)?;
    let mut wire = upstream.connect(Protocol::Resp2).await?;
    let role = match upstream.ask_in_time(&mut wire, "ROLE", &[b"ROLE"]).await {
        Ok(role) => role,
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
        Err(error) => return Err(error),
    };
    let is_primary = frame::elements(&role)
        .and_then(|role| frame::string(role.first()?)?.0)
        .is_some_and(|role| role == b"master");
    if is_primary {
        return Ok(());
    }
    Err(upstream.unavailable(&"the sentinels name it, but it is no primary"))
}

fn current(front: &Front) -> Option<Arc<Node>> {
    front.nodes.get(front.memory.validity.place_of_slot(0).node)
}

/// Lets everything go to this server from now on.
fn apply(front: &Arc<Front>, named: &Named) {
    front.cluster.raise(named.epoch);
    let old = current(front);
    if old.as_ref().is_some_and(|node| node.is_at(&named.host, named.port) && !node.is_retired()) {
        return;
    }
    let node = match front.nodes.find_or_add(&front.login, &named.host, named.port) {
        Ok(node) => node,
        Err(error) => {
            tracing::warn!("the primary that the sentinels name cannot be used: {error}");
            return;
        }
    };
    tracing::info!(address = node.upstream.label(), "the sentinels name another primary");
    front.memory.validity.watch(vec![node.place]);
    front.memory.validity.assign(0..1, node.place);
    if node.begin_tracking() {
        tokio::spawn(track(Arc::clone(front), Arc::clone(&node)));
    }
    if let Some(old) = old {
        retire(front, &old);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_sentinel_says_is_read() {
        let reply =
            b"*8\r\n$4\r\nname\r\n$4\r\nmain\r\n$2\r\nip\r\n$8\r\n10.0.0.7\r\n$4\r\nport\r\n\
                      $4\r\n6379\r\n$12\r\nconfig-epoch\r\n$1\r\n3\r\n";
        let named = Named { host: "10.0.0.7".to_owned(), port: 6379, epoch: 3 };
        assert_eq!(read(reply), Some(named));
        assert_eq!(read(b"*-1\r\n"), None);
        assert_eq!(read(&reply[..reply.len() - 1]), None);
    }

    proptest! {
        #[test]
        fn any_reply_is_read_or_not(reply in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&reply);
        }
    }
}
