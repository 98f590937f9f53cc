//! The memory tier through its public interface.

mod support;

#[cfg(not(shuttle))]
mod behaviour;
#[cfg(not(shuttle))]
mod budgets;
#[cfg(not(shuttle))]
mod model;
#[cfg(shuttle)]
mod schedules;
#[cfg(not(shuttle))]
mod stress;
