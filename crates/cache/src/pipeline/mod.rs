//! The steps of a read and of a write, the same for every door.
//!
//! | step | where |
//! |---|---|
//! | memory: fresh, or stale and refreshed in the background | `read::Engine::look`, `refresh` |
//! | join the key's flight, or begin one with a fence token | `read::Engine::load` |
//! | flights gathered into loads, one a batch | `departure` |
//! | the stores below memory, in order | `stores::Engine::consult` |
//! | one node at a time for each key | `lease::Engine::load_leased` |
//! | budget, breaker, the origin under its hard timeout | `load::Engine::ask` |
//! | keep the answer if its fence still holds | `land::Engine::land` |
//! | fill every store with what was kept | `stores::Engine::fill` |
//! | degrade: stale within its cap, the fallback, an error | `read::Engine::degrade` |
//! | what other nodes have invalidated | `hear` |
//! | what they have while this process was not there | `replay` |
//! | put, expire, remove: fence, version, memory | `write` |
//! | what depends on a change | `cascade` |
//! | change a value in place | `update` |
//! | many things at once, and gradually | `gradual` |
//! | write to the origin: hold, commit, tell | `through` |
//! | accept a write, show it, tell when the origin has it | `behind` |
//! | load a key of which writes wait | `behind::load` |

mod batch;
mod behind;
mod cascade;
mod departure;
mod gradual;
mod hear;
mod land;
mod lease;
mod load;
mod read;
mod refresh;
mod replay;
mod stores;
mod through;
mod update;
mod write;

pub(crate) use behind::Behind;
pub(crate) use load::Source;
pub(crate) use read::Request;
pub(crate) use through::WriteTerms;
pub(crate) use write::PutTerms;
