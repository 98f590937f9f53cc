use tokio::sync::watch;

/// Holds back whoever reaches it until the test lets them pass. Clones are the
/// same gate.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
/// # runtime.block_on(async {
/// use larder_testkit::faulty::Gate;
///
/// let gate = Gate::new();
/// let worker = tokio::spawn({
///     let gate = gate.clone();
///     async move { gate.pass().await }
/// });
/// gate.wait_for_arrivals(1).await;
/// assert!(!worker.is_finished());
/// gate.open();
/// worker.await.expect("it passes");
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct Gate(watch::Sender<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    arrivals: u64,
    admitted: u64,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(State::default()))
    }

    /// Announces an arrival and waits to be let through. The first to arrive is
    /// the first to pass.
    ///
    /// # Cancel safety
    /// A dropped wait keeps its place: one admission is spent on it.
    pub async fn pass(&self) {
        let mut place = 0;
        self.0.send_modify(|state| {
            state.arrivals += 1;
            place = state.arrivals;
        });
        self.wait_until(|state| state.admitted >= place).await;
    }

    /// Waits until this many have arrived, counted from the making of the gate.
    pub async fn wait_for_arrivals(&self, count: u64) {
        self.wait_until(|state| state.arrivals >= count).await;
    }

    /// How many have arrived.
    #[must_use]
    pub fn arrivals(&self) -> u64 {
        self.0.borrow().arrivals
    }

    /// Lets this many more pass, waiting or yet to come.
    pub fn admit(&self, count: u64) {
        self.0.send_modify(|state| state.admitted = state.admitted.saturating_add(count));
    }

    /// Lets everyone pass from now on.
    pub fn open(&self) {
        self.admit(u64::MAX);
    }

    async fn wait_until(&self, condition: impl Fn(&State) -> bool) {
        self.0
            .subscribe()
            .wait_for(|state| condition(state))
            .await
            .expect("this gate is a sender of the channel, so the channel is open");
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::block_on;

    #[test]
    fn one_admission_lets_the_first_pass_and_holds_the_second() {
        block_on(async {
            let gate = Gate::new();
            let first = tokio::spawn({
                let gate = gate.clone();
                async move { gate.pass().await }
            });
            gate.wait_for_arrivals(1).await;
            let second = tokio::spawn({
                let gate = gate.clone();
                async move { gate.pass().await }
            });
            gate.wait_for_arrivals(2).await;
            gate.admit(1);
            first.await.expect("the first is through");
            tokio::task::yield_now().await;
            assert!(!second.is_finished());
            gate.open();
            second.await.expect("an open gate holds nobody");
        });
    }
}
