//! The data sets, loaded into a real server.

use larder_testkit::nycflights13::Dataset;
use larder_testkit::pgbench;
use larder_testkit::postgres::Postgres;

#[test]
fn nycflights13_loads_with_its_keys_its_nulls_and_its_times() {
    let Some(dataset) = Dataset::find() else {
        eprintln!("skipped: the data set is not there; `./test install` fetches it");
        return;
    };
    let postgres = Postgres::launch();
    // It counts the rows itself.
    dataset.load_into_postgres(&postgres.url("postgres"));
    let flight = postgres.execute(
        "set time zone 'UTC';
         select tailnum, dep_time, time_hour from flights
         where carrier = 'UA' and flight = 1545 and time_hour = '2013-01-01T10:00:00Z'",
    );
    assert_eq!(flight, "N14228|517|2013-01-01 10:00:00+00\n");
    let cancelled = postgres.execute("select count(*) from flights where dep_time is null");
    assert_eq!(cancelled, "8255\n");
    let local_hours =
        postgres.execute("select count(distinct (origin, year, month, day, hour)) from weather");
    assert_eq!(local_hours, "26112\n");
}

#[test]
fn pgbench_loads_as_many_accounts_as_its_scale_says() {
    let postgres = Postgres::launch();
    pgbench::load(&postgres.url("postgres"), 2);
    let accounts = postgres.execute("select count(*), max(aid) from pgbench_accounts");
    let expected = 2 * pgbench::ACCOUNTS_PER_SCALE;
    assert_eq!(accounts, format!("{expected}|{expected}\n"));
}
