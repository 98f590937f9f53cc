//! Has stores of one process note how far they have heard, so that its next start
//! need not hear more than that again.

use std::sync::Weak;
use std::time::Duration;

use futures_util::future::{join_all, select};
use tokio::sync::watch;

use super::Shared;

/// Not with every message: what is noted late is heard again, which costs little.
const EVERY: Duration = Duration::from_millis(500);

/// Notes until the fleet is gone.
pub(super) async fn keep(fleet: Weak<Shared>, mut presence: watch::Receiver<()>) {
    let keeping = std::pin::pin!(async {
        loop {
            tokio::time::sleep(EVERY).await;
            let Some(shared) = fleet.upgrade() else { return };
            shared.keep_places().await;
        }
    });
    let gone = std::pin::pin!(presence.changed());
    let _ = select(keeping, gone).await;
}

impl Shared {
    /// Has every store that remembers it note up to where it has heard.
    pub(super) async fn keep_places(&self) {
        // Before anything is looked at: what was told until here is to be noted.
        let Some(place) = self.place() else { return };
        join_all(self.all_members().into_iter().map(|member| member.note_heard(place))).await;
    }
}
