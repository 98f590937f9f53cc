//! One connection to the primary that has a journal.

use larder_core::{Error, Result};
use redis::{Cmd, RedisError, ServerErrorKind, Value};

use crate::connector::Open;
use crate::discovery::Discovery;
use crate::failure::{ends_connection, failed, may_be_repeated};
use crate::reopening::{Live, Reopening};
use crate::script::Call;

/// A connection, opened anew when it ended, or when the journal has moved.
pub(super) struct Link {
    discovery: Discovery,
    place: Reopening<Open>,
}

/// Why there is no answer.
pub(super) struct Silence {
    pub(super) error: Error,
    /// Nothing was done, for sure.
    pub(super) is_nothing_done: bool,
    /// It may work over another connection, at once.
    is_worth_another: bool,
}

impl Link {
    pub(super) fn new(discovery: Discovery) -> Self {
        Self { discovery, place: Reopening::new() }
    }

    /// Calls a script. It may happen twice if the connection ends meanwhile. One
    /// round trip.
    ///
    /// # Errors
    /// As [`failed`] says.
    pub(super) async fn call(&self, call: &Call) -> Result<Value> {
        match self.call_once(call).await {
            Err(silence) if silence.is_worth_another => {
                self.call_once(call).await.map_err(|silence| silence.error)
            }
            answer => answer.map_err(|silence| silence.error),
        }
        .map(|(answer, _)| answer)
    }

    /// Calls a script that must not happen twice. The connection over which it went
    /// is there for what is to follow over the same one.
    pub(super) async fn call_once(&self, call: &Call) -> Result<(Value, Live<Open>), Silence> {
        let mut live = self.open().await?;
        let mut answer = self.send(&mut live, &call.by_digest()).await;
        if matches!(&answer, Err((error, _)) if is_unknown_script(error)) {
            answer = self.send(&mut live, &call.in_full()).await;
        }
        match answer {
            Ok(answer) => Ok((answer, live)),
            Err((error, server)) => Err(silence(&error, &server)),
        }
    }

    /// Sends a command over this connection and no other one.
    pub(super) async fn ask_over(&self, live: &mut Live<Open>, command: &Cmd) -> Result<Value> {
        let answer = self.send(live, command).await;
        answer.map_err(|(error, server)| failed(&error, &server))
    }

    /// Sends a command that changes nothing.
    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value> {
        let mut live = self.open().await.map_err(|silence| silence.error)?;
        match self.send(&mut live, command).await {
            Err((error, _)) if is_worth_another(&error) => {
                let mut live = self.open().await.map_err(|silence| silence.error)?;
                let answer = self.send(&mut live, command).await;
                answer.map_err(|(error, server)| failed(&error, &server))
            }
            answer => answer.map_err(|(error, server)| failed(&error, &server)),
        }
    }

    async fn open(&self) -> Result<Live<Open>, Silence> {
        let opened = self.place.get(self.discovery.open_primary()).await;
        opened.map_err(|error| Silence { error, is_nothing_done: true, is_worth_another: false })
    }

    async fn send(
        &self,
        live: &mut Live<Open>,
        command: &Cmd,
    ) -> Result<Value, (RedisError, String)> {
        let answer = live.open.connection.send_packed_command(command).await;
        answer.and_then(Value::extract_error).map_err(|error| {
            if ends_connection(&error) || is_elsewhere(&error) {
                self.place.close(live);
            }
            (error, live.open.endpoint.to_string())
        })
    }
}

fn silence(error: &RedisError, server: &str) -> Silence {
    // What the server answered it has not done: scripts fail before they write.
    let is_answer = error.code().is_some() || is_elsewhere(error);
    Silence {
        is_nothing_done: is_answer && !error.is_timeout(),
        is_worth_another: is_worth_another(error),
        error: failed(error, server),
    }
}

fn is_worth_another(error: &RedisError) -> bool {
    may_be_repeated(error) || is_elsewhere(error)
}

/// Whether another node of the cluster has the keys.
fn is_elsewhere(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, ClusterDown, Moved, TryAgain};
    matches!(error.kind(), redis::ErrorKind::Server(Moved | Ask | ClusterDown | TryAgain))
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript)
}
