//! Loads the flights that left New York City in 2013 into a Postgres database of
//! yours, to serve it and look around.
//!
//! ```text
//! ./test install
//! cargo run --package larder-testkit --example nycflights13 -- postgres://127.0.0.1/flights
//! ```

use std::time::Instant;

use larder_testkit::nycflights13::{Dataset, TABLES};

fn main() {
    let Some(dataset) = Dataset::find() else {
        eprintln!("skipped: the data set is not there; `./test install` fetches it");
        return;
    };
    let Some(url) = std::env::args().nth(1) else {
        eprintln!("name the database to load {} tables into, as postgres://…", TABLES.len());
        return;
    };
    let started = Instant::now();
    dataset.load_into_postgres(&url);
    for (table, rows) in TABLES {
        eprintln!("{rows:>8} {table}");
    }
    eprintln!("loaded in {:.1?}", started.elapsed());
}
